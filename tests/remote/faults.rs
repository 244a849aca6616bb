//! Connections that break.

use std::time::Duration;

use lumenfall::ErrorKind;
use lumenfall::RetryPolicy;
use wiremock::ResponseTemplate;

use crate::support::{
    Act, ONE_ADDRESS, RawServer, answering, builder, generate, json, own_http_client, remote, requests,
};

#[tokio::test]
async fn a_refused_connection_was_not_billed_and_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let remote =
        builder(&format!("http://127.0.0.1:{port}")).retry(RetryPolicy::default().max_retries(1)).backend().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 2));
    assert!(!error.maybe_billed());
}

#[tokio::test]
async fn a_reset_after_sending_may_have_been_billed_and_is_not_tried_again() {
    let server = RawServer::start(Act::SayAndReset(Vec::new())).await;
    let error = generate(&builder(&server.uri).backend().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 1));
    assert!(error.maybe_billed());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_silent_answer_ends_at_the_idle_time_out() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec();
    let server = RawServer::start(Act::SayAndHang(head)).await;
    let remote = builder(&server.uri).idle_timeout(Duration::from_millis(200)).backend().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.maybe_billed());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = answering(json(200, ONE_ADDRESS)).await;
    let server = answering(ResponseTemplate::new(307).insert_header("location", elsewhere.uri())).await;
    let error = generate(&remote(&server)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(requests(&elsewhere).await.is_empty());
}

#[tokio::test]
async fn a_callers_own_client_that_follows_redirects_takes_no_key_to_another_host() {
    let elsewhere = answering(json(200, ONE_ADDRESS)).await;
    let other_host = elsewhere.uri().replace("127.0.0.1", "localhost");
    let server = answering(ResponseTemplate::new(307).insert_header("location", other_host)).await;
    let http = own_http_client().build().unwrap();
    generate(&builder(&server.uri()).http_client(http).backend().unwrap()).await.unwrap();
    assert!(requests(&server).await[0].headers.contains_key("authorization"));
    assert!(!requests(&elsewhere).await[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn no_compressed_answer_is_asked_for() {
    let server = answering(json(200, ONE_ADDRESS)).await;
    generate(&remote(&server)).await.unwrap();
    assert!(!requests(&server).await[0].headers.contains_key("accept-encoding"));
}
