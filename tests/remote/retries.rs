//! Retries: how often a request is sent, what its attempts may have cost, and how long the client waits in between.

use crate::support::*;

fn rate_limit(headers: &str) -> Act {
    Act::Send(response("429 Too Many Requests", headers, ""))
}

/// `docs/faults.md` lists all failures; there, no retry succeeds. If all providers are exhausted, the gateway may charge for a
/// part of the work, but there are no images that a retry would pay for again.
#[test]
fn attempts_that_may_have_been_billed_are_counted_even_before_a_success() {
    let [e500, e502, e503] = ["500 A", "502 B", "503 C"].map(|status| Act::Send(response(status, "", "")));
    let exhausted = response("502 Bad Gateway", "", r#"{"error":{"code":"ALL_PROVIDERS_EXHAUSTED"}}"#);
    let (exhausted, success) = (Act::Send(exhausted), Act::Send(response("200 OK", "", ONE_URL)));
    let (careful, bold) = (RetryPolicy::default(), RetryPolicy::default().may_bill_twice());
    // The result is the number of lost bills, or of attempts that may have been billed and whether they made no images.
    for (acts, policy, result) in [
        ([rate_limit(""), e503.clone(), rate_limit(""), success.clone()], &careful, Ok(0)),
        ([e503.clone(), exhausted.clone(), exhausted.clone(), success.clone()], &careful, Ok(2)),
        ([e500.clone(), e503, e502, success], &bold, Ok(2)),
        ([exhausted.clone(), exhausted.clone(), exhausted.clone(), exhausted.clone()], &careful, Err((4, true))),
        ([e500, exhausted.clone(), exhausted.clone(), exhausted], &bold, Err((4, false))),
    ] {
        paused(async {
            let server = RawServer::start(acts).await;
            let images = generate(&builder(&server.uri).retry(policy.clone()).build().unwrap()).await;
            let bills = images.map(|images| images.metadata().lost_bills);
            assert_eq!(bills.map_err(|error| (error.maybe_billed_attempts(), error.made_nothing())), result);
            assert_eq!(server.requests(), 4);
        });
    }
}

#[test]
fn attempts_are_limited_and_counted_and_the_waits_belong_to_the_elapsed_time() {
    paused(async {
        let server = RawServer::start([rate_limit("retry-after-ms: 700\r\n")]).await;
        let remote = builder(&server.uri).retry(RetryPolicy::default().max_retries(2)).build().unwrap();
        let start = Instant::now();
        let error = generate(&remote).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts(), server.requests()), (ErrorKind::RateLimited, 3, 3));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(700)));
        assert_eq!(error.elapsed(), Some(start.elapsed()));
        assert!(start.elapsed() >= Duration::from_millis(1400));
    });
}

#[test]
fn retry_after_is_obeyed_up_to_the_maximum_wait_unless_it_exceeds_the_deadline() {
    let dates = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:17 GMT\r\n";
    for (headers, waited, requests) in [
        ("retry-after: 30\r\n", 30, 2),
        ("retry-after-ms: 7000\r\n", 7, 2),
        (dates, 40, 2),
        ("retry-after: 259200\r\n", 60, 2),
        ("retry-after: 50\r\n", 0, 1),
    ] {
        paused(async {
            let server = RawServer::start([rate_limit(headers), Act::Send(response("200 OK", "", ONE_URL))]).await;
            let timeout = Duration::from_secs(if requests == 1 { 45 } else { 600 });
            let start = Instant::now();
            let result = generate(&builder(&server.uri).timeout(timeout).build().unwrap()).await;
            assert_eq!((start.elapsed().as_secs(), server.requests()), (waited, requests), "{headers}");
            assert_eq!(result.err().map(|error| error.kind()), (requests == 1).then_some(ErrorKind::RateLimited));
        });
    }
}

/// LiteLLM has retried the request itself before it responds.
#[test]
fn errors_of_a_gateway_that_retries_are_final_unless_its_retries_are_off() {
    let bodies = [
        ("x-litellm-attempted-retries: 2\r\n", "busy".to_owned(), "retries by the gateway: 2"),
        ("x-litellm-call-id: a\r\n", "busy LiteLLM Retried: 3 times".to_owned(), "LiteLLM Retried: 3 times"),
        ("x-litellm-call-id: a\r\n", "busy ".repeat(300) + "LiteLLM Retried: 3 times", "retries by the gateway: 3"),
    ];
    let off = RetryPolicy::default().retry_gateways();
    for (headers, message, shown) in bodies {
        for (policy, requests) in [(RetryPolicy::default().max_retries(2), 1), (off.clone().max_retries(2), 3)] {
            paused(async {
                let body = json!({ "error": { "message": message } }).to_string();
                let server = RawServer::start([Act::Send(response("429 Too Many Requests", headers, &body))]).await;
                let error = generate(&builder(&server.uri).retry(policy).build().unwrap()).await.unwrap_err();
                assert_eq!((error.kind(), server.requests()), (ErrorKind::RateLimited, requests));
                assert!(error.to_string().contains(shown) && !error.maybe_billed(), "{error}");
            });
        }
    }
}

#[test]
fn retries_of_a_gateway_are_counted_in_the_metadata() {
    for (headers, retries) in [("x-litellm-attempted-retries: 2\r\n", Some(2)), ("", None)] {
        paused(async {
            let server = RawServer::start([Act::Send(response("200 OK", headers, ONE_URL))]).await;
            let images = generate(&remote(&server.uri)).await.unwrap();
            assert_eq!((images.metadata().gateway_retries, images.metadata().attempts), (retries, 1));
        });
    }
}
