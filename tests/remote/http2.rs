//! What a server says by HTTP/2's own means.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use h2::Reason;
use lumenfall::backend::{Backend, RequestContext};
use lumenfall::remote::Remote;
use lumenfall::{ErrorKind, Input, RetryPolicy};
use reqwest::retry;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Act, Folder, ONE_ADDRESS, PNG, RawServer, builder, edit_spec, generate, own_http_client, patient,
};

/// A server that resets its first stream for this reason, and answers all others.
struct Http2Server {
    uri: String,
    requests: Arc<AtomicUsize>,
}

impl Http2Server {
    async fn resetting(reason: Reason) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, reason, Arc::clone(&count)));
            }
        });
        Self { uri, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, reason: Reason, count: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        // Beside the connection, which has to be driven for the body to come.
        tokio::spawn(async move {
            while let Some(Ok(_)) = request.body_mut().data().await {}
            if first {
                respond.send_reset(reason);
            } else {
                let mut body = respond.send_response(http_ok(), false).unwrap();
                body.send_data(Bytes::from_static(ONE_ADDRESS.as_bytes()), true).unwrap();
            }
        });
    }
}

/// A server that announces more than it sends, and then ends the stream as if nothing were wrong.
async fn cutting_short(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut head = http_ok();
                    head.headers_mut().insert("content-length", (body.len() + 1).into());
                    let mut stream = respond.send_response(head, false).unwrap();
                    stream.send_data(Bytes::from_static(body.as_bytes()), false).unwrap();
                    tokio::spawn(async move {
                        // The data is to arrive first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        stream.send_reset(Reason::NO_ERROR);
                    });
                }
            });
        }
    });
    uri
}

#[tokio::test]
async fn an_answer_that_ends_early_is_not_taken_for_whole() {
    let uri = cutting_short("half").await;
    let error = generate(&remote(&uri, RetryPolicy::none())).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, true), "{error}");

    let mut image = remote(&uri, RetryPolicy::none()).fetch(&uri).await.unwrap();
    assert_eq!(image.next().await.unwrap().unwrap(), "half");
    let error = image.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Connection, false), "{error}");
}

/// The connection itself says only that the stream was reset, and that by us.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_is_told() {
    let folder = Folder::new();
    let path = folder.file("a.png", &[PNG, &vec![7; 16 << 20]].concat());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut requests = 0;
        while let Some(Ok((mut request, _respond))) = connection.accept().await {
            requests += 1;
            let file = file.try_clone().unwrap();
            tokio::spawn(async move {
                while let Some(Ok(piece)) = request.body_mut().data().await {
                    file.set_len(1000).unwrap();
                    request.body_mut().flow_control().release_capacity(piece.len()).unwrap();
                }
            });
        }
        requests
    });
    let remote = remote(&uri, RetryPolicy::default().may_bill_twice());
    let error = remote.edit(edit_spec(vec![Input::path(&path)]), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Io, false, 1), "{error:?}");
    assert!(error.to_string().contains("a.png to its end: it became shorter"), "{error}");
    assert_eq!(error.parameter(), Some("image"));
    drop(remote);
    assert_eq!(server.await.unwrap(), 1);
}

fn http_ok() -> http::Response<()> {
    http::Response::new(())
}

/// A client that speaks nothing but HTTP/2.
fn remote(uri: &str, policy: RetryPolicy) -> Remote {
    let http = own_http_client().http2_prior_knowledge().retry(retry::never()).build().unwrap();
    builder(uri).http_client(http).retry(policy).backend().unwrap()
}

#[tokio::test]
async fn a_stream_that_was_refused_is_tried_again_and_costs_nothing() {
    let server = Http2Server::resetting(Reason::REFUSED_STREAM).await;
    let images = generate(&remote(&server.uri, RetryPolicy::default())).await.unwrap();
    assert_eq!((images.metadata().lost_bills, server.requests()), (0, 2));

    let server = Http2Server::resetting(Reason::REFUSED_STREAM).await;
    let error = generate(&remote(&server.uri, RetryPolicy::none())).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), server.requests()), (ErrorKind::Connection, false, 1));
}

#[tokio::test]
async fn a_stream_that_was_reset_otherwise_may_have_been_billed() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let server = Http2Server::resetting(reason).await;
        let error = generate(&remote(&server.uri, RetryPolicy::default())).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed_tries()), (ErrorKind::Connection, 1), "{reason}");
        assert_eq!(server.requests(), 1, "{reason}");
    }
}

#[tokio::test]
async fn a_server_that_goes_away_before_the_request_did_not_execute_it() {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // No stream was processed (0), and nothing is wrong (0).
    let goes_away = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let server = RawServer::start(Act::SayAndHang([&settings[..], &goes_away].concat())).await;
    let error = generate(&remote(&server.uri, patient(1))).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Connection, false, 2));
    assert_eq!(server.requests(), 2);
}
