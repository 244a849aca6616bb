//! Deadlines: the client's timeout and the caller's deadline bound a whole call, whatever happens in it.

use lumenfall::layers::{Fallback, Retry};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_earlier_of_timeout_and_deadline_bounds_all_attempts_and_downloads_together() {
    for (timeout, deadline, seconds, attempts) in
        [(25, None, 25, 3), (25, Some(60), 25, 3), (600, Some(25), 25, 3), (600, Some(5), 5, 1)]
    {
        paused(async {
            // One server sends no response, and the other sends the URL of a file whose end is missing.
            let silent = RawServer::start([Act::Hang(Vec::new())]).await;
            let head = b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 9\r\n\r\n0123".to_vec();
            let file = RawServer::start([Act::Hang(head)]).await;
            let with_url = RawServer::start([Act::Send(response("200 OK", "", with_urls(&[&file.uri])))]).await;
            for (server, slow) in [(&silent, &silent), (&with_url, &file)] {
                let remote = builder(&server.uri)
                    .timeout(timeout * SECOND)
                    .first_byte_timeout(10 * SECOND)
                    .idle_timeout(10 * SECOND)
                    .retry(RetryPolicy::default().max_retries(100).may_bill_twice());
                let mut request = Client::new(remote.build().unwrap()).images().generate("a cat").inline();
                request = deadline.into_iter().fold(request, |request, deadline| request.timeout(deadline * SECOND));
                let start = Instant::now();
                let error = request.send().await.unwrap_err();
                assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true));
                assert_eq!((start.elapsed().as_secs(), slow.requests()), (seconds, attempts));
            }
        });
    }
}

#[test]
fn a_request_has_one_deadline_through_all_layers() {
    paused(async {
        let silent = RawServer::start([Act::Hang(Vec::new())]).await;
        let remote = builder(&silent.uri).retry(RetryPolicy::none()).build().unwrap();
        let both = Fallback::new(remote.clone()).then(remote).even_if_billed();
        let layered = Retry::new(both, RetryPolicy::default().max_retries(9).may_bill_twice());
        let mut context = RequestContext::default();
        context.deadline = Some((Instant::now() + SECOND).into_std());
        let start = Instant::now();
        let error = layered.send(generate_spec().into(), context).await.unwrap_err();
        assert_eq!((error.kind(), silent.requests()), (ErrorKind::Timeout, 1), "{error}");
        assert_eq!(start.elapsed().as_secs(), 1);
    });
}

/// Some servers send the head of a response before they generate the image.
#[test]
fn a_body_may_start_as_late_as_the_head_but_may_not_pause_as_long() {
    let response = response("200 OK", "", ONE_URL);
    let body = response.len() - ONE_URL.len();
    for (sent, pause, failed_after) in
        [(body, 470, None), (body, 490, Some(480)), (body + 1, 50, None), (body + 1, 70, Some(60))]
    {
        paused(async {
            let (first, rest) = response.split_at(sent);
            let server = RawServer::start([Act::Pause(first.to_vec(), pause * SECOND, rest.to_vec())]).await;
            let start = Instant::now();
            let result = generate(&remote(&server.uri)).await;
            assert_eq!(result.as_ref().err().map(Error::kind), failed_after.map(|_| ErrorKind::Timeout));
            assert_eq!(start.elapsed().as_secs(), failed_after.unwrap_or(pause.into()));
        });
    }
}

#[tokio::test]
async fn the_longest_duration_disables_a_timeout() {
    let server = responding(json_response(200, ONE_URL)).await;
    let builder = builder(&server.uri()).timeout(Duration::MAX).first_byte_timeout(Duration::MAX);
    let remote = builder.idle_timeout(Duration::MAX).connect_timeout(Duration::MAX).build().unwrap();
    assert_eq!(generate(&remote).await.unwrap().len(), 1);
}
