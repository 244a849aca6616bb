//! HTTP/2: the client knows from a reset or a closing connection whether the server executed the request.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::net::TcpListener;

use crate::support::*;

/// A client that speaks only HTTP/2.
fn remote(uri: &str, policy: RetryPolicy) -> Remote {
    let http = http_client().http2_prior_knowledge().retry(reqwest::retry::never()).build().unwrap();
    builder(uri).http_client(http).retry(policy).build().unwrap()
}

/// Starts a server that passes the body of each request, the response and the number of earlier requests to `respond`.
/// Returns its URL and the number of requests.
pub(crate) async fn server<F: Future<Output = ()> + Send + 'static>(
    respond: impl Fn(RecvStream, SendResponse<Bytes>, usize) -> F + Send + Clone + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Otherwise the system delays small frames for real time, even if the test's clock is paused.
            stream.set_nodelay(true).unwrap();
            let (respond, count) = (respond.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                // Only this loop drives the connection, so each response has its own task.
                while let Some(Ok((request, response))) = connection.accept().await {
                    tokio::spawn(respond(request.into_body(), response, count.fetch_add(1, Ordering::SeqCst)));
                }
            });
        }
    });
    (uri, requests)
}

#[tokio::test]
async fn only_a_refused_stream_is_retried_and_was_surely_not_billed() {
    let (default, none) = (RetryPolicy::default(), RetryPolicy::none());
    for (reason, policy, lost_bills, requests) in [
        (Reason::REFUSED_STREAM, &default, Ok(0), 2),
        (Reason::REFUSED_STREAM, &none, Err(0), 1),
        (Reason::INTERNAL_ERROR, &default, Err(1), 1),
        (Reason::CANCEL, &default, Err(1), 1),
        (Reason::ENHANCE_YOUR_CALM, &default, Err(1), 1),
    ] {
        let respond = move |mut body: RecvStream, mut response: SendResponse<Bytes>, earlier| async move {
            while let Some(Ok(_)) = body.data().await {}
            if earlier == 0 {
                response.send_reset(reason);
            } else {
                let mut body = response.send_response(http::Response::new(()), false).unwrap();
                body.send_data(ONE_URL.into(), true).unwrap();
            }
        };
        let (uri, count) = server(respond).await;
        let result = generate(&remote(&uri, policy.clone())).await;
        assert!(result.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Connection));
        let result = result.map(|images| images.metadata().lost_bills).map_err(|error| error.maybe_billed_attempts());
        assert_eq!((result, count.load(Ordering::SeqCst)), (lost_bills, requests), "{reason}");
    }
}

#[test]
fn a_server_that_closes_the_connection_before_a_request_did_not_execute_it() {
    paused(async {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // A GOAWAY frame: the last processed stream is 0, and the reason is NO_ERROR.
        let go_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let server = RawServer::start([Act::Hang([&settings[..], &go_away].concat())]).await;
        let error = generate(&remote(&server.uri, RetryPolicy::default().max_retries(1))).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Connection, false, 2));
        assert_eq!(server.requests(), 2);
    });
}

#[test]
fn a_response_that_ends_before_its_content_length_is_truncated() {
    paused(async {
        let respond = |_, mut response: SendResponse<Bytes>, _| async move {
            let head = http::Response::builder().header("content-length", "5").body(()).unwrap();
            let mut body = response.send_response(head, false).unwrap();
            body.send_data("half".into(), false).unwrap();
            // The client must receive the data before the reset discards it.
            wait(Duration::from_millis(50)).await;
            body.send_reset(Reason::NO_ERROR);
        };
        let (uri, _) = server(respond).await;
        let remote = remote(&uri, RetryPolicy::none());
        let error = generate(&remote).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, true), "{error}");

        let mut image = remote.fetch(&uri).await.unwrap();
        assert_eq!(image.next().await.unwrap().unwrap(), "half");
        let error = image.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, false), "{error}");
    });
}
