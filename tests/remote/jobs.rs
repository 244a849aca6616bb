//! Jobs at fal and Replicate: each is submitted once, its status is polled until it ends, and it is cancelled if no call waits for
//! it any more.

use tokio::time::{sleep, timeout};

use crate::support::providers::{PROVIDERS, Script, Settings, ok, status};
use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn progress_is_reported_in_order_and_the_urls_of_the_provider_are_not_followed() {
    for provider in &PROVIDERS {
        paused(async {
            let polls = vec![ok(provider.queued), ok(provider.running), ok(provider.ended)];
            let server = provider.server(Script { status: polls, ..provider.script() }).await;
            let (context, reported) = progress();
            let output = (provider.build)(Settings::new(&server)).send(generate_spec().into(), context).await.unwrap();
            assert_eq!(output.images[0].content, Content::Url("https://files.example/1".into()));
            assert_eq!(*reported.lock().unwrap(), [Progress::Queued { position: None }, Progress::Running]);
            assert_eq!((server.count(provider.status), server.count(provider.cancel)), (3, 0), "{}", provider.name);
        });
    }
}

/// The result is the number of attempts that may have been billed: lost ones of a success, or all of a failure.
#[test]
fn a_submission_is_repeated_only_if_it_was_not_executed_or_may_be_billed_twice() {
    let careful = RetryPolicy::default().max_retries(1);
    let bold = careful.clone().may_bill_twice();
    for provider in &PROVIDERS {
        let ended = ok(provider.ended);
        for (failure, retry, polled, submissions, result) in [
            (429, &careful, ended.clone(), 2, Ok(0)),
            (503, &careful, ended.clone(), 2, Ok(0)),
            (500, &careful, ended.clone(), 1, Err(1)),
            (500, &bold, ended, 2, Ok(1)),
            (500, &bold, status(404), 2, Err(2)),
        ] {
            paused(async {
                let submit = vec![status(failure), Act::Send(provider.submitted())];
                let server = provider.server(Script { submit, status: vec![polled], ..provider.script() }).await;
                let output = provider.run(Settings { retry: retry.clone(), ..Settings::new(&server) }, None).await;
                let billed = output.map(|output| output.metadata.lost_bills);
                assert_eq!(billed.map_err(|error| error.maybe_billed_attempts()), result);
                assert_eq!(server.count(provider.submit), submissions, "{} {failure}", provider.name);
            });
        }
    }
}

/// Temporary failures, and unexpected responses that a proxy may have sent, do not mean that the job has ended.
#[test]
fn polling_continues_through_failures_and_fewer_than_three_unexpected_responses_in_a_row() {
    for provider in &PROVIDERS {
        let page = ok("<html>please wait</html>");
        for unexpected in [302, 401, 404] {
            let twice = vec![status(unexpected); 2];
            let polls =
                [&vec![page.clone(); 3], &twice, &vec![ok(provider.running)], &twice, &vec![ok(provider.ended)]];
            let polls: Vec<_> = polls.into_iter().flatten().cloned().collect();
            // More failures than the retry policy allows for one request.
            let result = [vec![status(503); 8], vec![page.clone()], provider.script().result].concat();
            paused(async {
                let expected = polls.len();
                let server = provider.server(Script { status: polls, result, ..provider.script() }).await;
                assert_eq!(provider.run(Settings::new(&server), None).await.unwrap().images.len(), 1);
                assert_eq!((server.count(provider.submit), server.count(provider.cancel)), (1, 0));
                assert_eq!(server.count(provider.status), expected, "{} {unexpected}", provider.name);
            });
        }
    }
}

#[test]
fn three_unexpected_responses_in_a_row_end_the_call_and_cancel_the_job() {
    for provider in &PROVIDERS {
        paused(async {
            let server = provider.server(Script { status: vec![status(404)], ..provider.script() }).await;
            let error = provider.run(Settings::new(&server), Some(60)).await.unwrap_err();
            assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::NotFound, true));
            assert_eq!((error.request_id(), error.attempts()), (Some("j1"), 1), "the attempts of the submission");
            assert_eq!((server.count(provider.status), server.count(provider.cancel)), (3, 1), "{}", provider.name);
        });
    }
}

#[test]
fn the_status_is_polled_once_more_before_the_deadline_even_with_a_longer_interval() {
    for provider in &PROVIDERS {
        let (running, ended) = (ok(provider.running), ok(provider.ended));
        for polls in [vec![running.clone(), ended.clone()], vec![running, status(404), ended]] {
            paused(async {
                let server = provider.server(Script { status: polls, ..provider.script() }).await;
                let settings = Settings { interval: Duration::from_secs(60), ..Settings::new(&server) };
                assert_eq!(provider.run(settings, Some(4)).await.unwrap().images.len(), 1, "{}", provider.name);
            });
        }
    }
}

/// If the submission has no response yet, which contains the id of the job, the cancellation follows that response.
#[test]
fn a_call_that_is_dropped_or_times_out_cancels_its_job() {
    for provider in &PROVIDERS {
        let late = || vec![Act::Pause(Vec::new(), 5 * SECOND, provider.submitted())];
        for (submit, dropped_after, deadline, first_byte_timeout) in [
            (provider.script().submit, 3, None, 480),
            (late(), 3, None, 480),
            (late(), 60, Some(3), 480),
            (late(), 60, None, 3),
        ] {
            paused(async {
                let status = vec![ok(provider.queued)];
                let server = provider.server(Script { submit, status, ..provider.script() }).await;
                let first_byte_timeout = first_byte_timeout * SECOND;
                let settings = Settings { first_byte_timeout, ..Settings::new(&server) };
                if let Ok(result) = timeout(dropped_after * SECOND, provider.run(settings, deadline)).await {
                    let error = result.unwrap_err();
                    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
                }
                sleep(60 * SECOND).await;
                assert_eq!((server.count(provider.submit), server.count(provider.cancel)), (1, 1), "{}", provider.name);
            });
        }
    }
}

#[test]
fn a_call_that_is_dropped_before_its_submission_is_connected_or_rejected_sends_no_more() {
    for provider in &PROVIDERS {
        for (delay_of_connection, submissions) in [(2, 0), (0, 1)] {
            paused(async {
                let rejection = response("429 Too Many Requests", "retry-after-ms: 1\r\n", "");
                let submit = vec![Act::Pause(Vec::new(), 2 * SECOND, rejection)];
                let server = provider.server(Script { submit, ..provider.script() }).await;
                let (base_url, http_client) = slow_to_connect(&server.uri, delay_of_connection);
                let http_client = http_client.build().unwrap();
                let settings = Settings { base_url, http_client, ..Settings::new(&server) };
                assert!(timeout(SECOND, provider.run(settings, None)).await.is_err());
                sleep(60 * SECOND).await;
                assert_eq!(server.requests(), submissions, "{}", provider.name);
            });
        }
    }
}

/// A program may end after the call, so the call itself waits for the cancellation.
#[test]
fn a_job_that_is_not_finished_in_time_is_cancelled_before_the_call_ends() {
    for provider in &PROVIDERS {
        for act in [ok(provider.running), Act::Hang(Vec::new())] {
            paused(async {
                let server = provider.server(Script { status: vec![act], ..provider.script() }).await;
                let error = provider.run(Settings::new(&server), Some(20)).await.unwrap_err();
                assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
                assert_eq!((error.request_id(), error.attempts()), (Some("j1"), 1));
                assert_eq!(error.elapsed().unwrap().as_secs(), 19, "a second remains for the cancellation");
                assert_eq!(server.count(provider.cancel), 1, "{}", provider.name);
            });
        }
    }
}
