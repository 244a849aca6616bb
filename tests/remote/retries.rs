//! What is tried again, and what never is.

use std::time::{Duration, Instant, SystemTime};

use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::layers::{Fallback, Retry};
use lumenfall::{ErrorKind, Input, RetryPolicy};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{
    Act, Folder, ONE_ADDRESS, PNG, Part, RawServer, answering, builder, edit_spec, gateway, generate, generate_spec,
    generate_with, json, parts, patient, remote, requests,
};

/// A server that fails once and then answers.
async fn failing_once(failure: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(failure).up_to_n_times(1).mount(&server).await;
    Mock::given(method("POST")).respond_with(json(200, ONE_ADDRESS)).mount(&server).await;
    server
}

fn error(code: &str) -> String {
    format!(r#"{{"error":{{"message":"no","type":"x","code":"{code}"}}}}"#)
}

#[tokio::test]
async fn what_was_not_executed_is_tried_again() {
    for failure in
        [json(429, &error("RATE_LIMITED")), json(502, &error("ALL_PROVIDERS_EXHAUSTED")), ResponseTemplate::new(503)]
    {
        let server = failing_once(failure).await;
        generate(&remote(&server)).await.unwrap();
        assert_eq!(requests(&server).await.len(), 2);
    }
}

#[tokio::test]
async fn a_429_without_json_is_tried_again() {
    let server = failing_once(ResponseTemplate::new(429).set_body_string("<html>slow down</html>")).await;
    generate(&remote(&server)).await.unwrap();
    assert_eq!(requests(&server).await.len(), 2);
}

#[tokio::test]
async fn what_may_have_been_billed_is_not_tried_again() {
    for failure in [
        json(500, &error("INTERNAL_ERROR")),
        json(502, &error("UPSTREAM_ERROR")),
        json(503, &error("UPSTREAM_ERROR")),
        json(503, &error("internal_error")),
        ResponseTemplate::new(500).set_body_string("<html>oops</html>"),
        ResponseTemplate::new(502),
        ResponseTemplate::new(524),
    ] {
        let server = failing_once(failure).await;
        let error = generate(&remote(&server)).await.unwrap_err();
        assert!(error.maybe_billed(), "{error}");
        assert!(error.to_string().contains("may have been billed"), "{error}");
        assert_eq!(requests(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn may_bill_twice_opts_in_to_trying_again() {
    let server = failing_once(ResponseTemplate::new(500)).await;
    let remote = builder(&server.uri()).retry(RetryPolicy::default().may_bill_twice()).backend().unwrap();
    generate(&remote).await.unwrap();
    assert_eq!(requests(&server).await.len(), 2);
}

#[tokio::test]
async fn tries_that_may_have_been_billed_before_a_success_are_counted() {
    let server = MockServer::start().await;
    for status in [500, 503, 502] {
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(status)).up_to_n_times(1).mount(&server).await;
    }
    Mock::given(method("POST")).respond_with(json(200, ONE_ADDRESS)).mount(&server).await;
    let remote = builder(&server.uri()).retry(RetryPolicy::default().may_bill_twice()).backend().unwrap();
    assert_eq!(generate(&remote).await.unwrap().metadata().lost_bills, 2);
    assert_eq!(generate(&remote).await.unwrap().metadata().lost_bills, 0);
}

#[tokio::test]
async fn the_last_words_of_the_gateway_do_not_undo_an_earlier_bill() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).mount(&server).await;
    let exhausted = json(502, &error("ALL_PROVIDERS_EXHAUSTED"));
    Mock::given(method("POST")).respond_with(exhausted).mount(&server).await;
    let once = RetryPolicy::default().may_bill_twice().max_retries(1);
    let remote = builder(&server.uri()).retry(once.clone()).backend().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.maybe_billed_tries(), error.made_nothing()), (2, false));
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.maybe_billed_tries(), error.made_nothing()), (2, true));
    assert!(error.to_string().ends_with("(the request may have been billed 2 times)"), "{error}");
}

#[tokio::test]
async fn a_dry_run_costs_nothing_and_is_tried_again() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).mount(&server).await;
    Mock::given(method("POST")).respond_with(json(200, r#"{"total_cost_micros":5}"#)).mount(&server).await;
    let request = Request::Generate(generate_spec());
    let estimate = gateway(&server).estimate(request, RequestContext::default()).await.unwrap();
    assert_eq!(estimate.total.amount, 5e-6);
}

#[tokio::test]
async fn what_would_fail_again_is_not_tried_again() {
    for (status, code, kind) in [
        (400, "INVALID_REQUEST", ErrorKind::InvalidRequest),
        (400, "CONTENT_POLICY_VIOLATION", ErrorKind::ContentPolicy),
        (401, "AUTHENTICATION_FAILED", ErrorKind::Authentication),
        (402, "INSUFFICIENT_BALANCE", ErrorKind::InsufficientBalance),
        (404, "MODEL_NOT_FOUND", ErrorKind::NotFound),
        (404, "RECORDING_NOT_FOUND", ErrorKind::NotFound),
        (429, "insufficient_quota", ErrorKind::InsufficientBalance),
    ] {
        let server = answering(json(status, &error(code)).insert_header("X-Lumenfall-Request-Id", "req_9")).await;
        let error = generate(&remote(&server)).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.status()), (kind, Some(code), Some(status)));
        assert_eq!((error.request_id(), error.attempts()), (Some("req_9"), 1));
        assert!(!error.maybe_billed());
        assert_eq!(requests(&server).await.len(), 1);
    }
}

#[tokio::test]
async fn error_bodies_are_read_in_every_shape() {
    for (body, code, message) in [
        (
            r#"{"error":{"message":"too long","type":"t","code":"INVALID_REQUEST"}}"#,
            Some("INVALID_REQUEST"),
            "too long",
        ),
        (r#"{"error_code":"INVALID_REQUEST","message":"too long"}"#, Some("INVALID_REQUEST"), "too long"),
        (r#"{"error":"too long"}"#, None, "too long"),
        (r#"{"detail":"too long"}"#, None, "too long"),
        (r#"{"error":{"message":"too long","type":"bad_thing","code":null}}"#, Some("bad_thing"), "too long"),
        ("not json", None, "400"),
        ("[1]", None, "400"),
    ] {
        let error = generate(&remote(&answering(json(400, body)).await)).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidRequest, code), "{body}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn tries_are_bounded_and_counted() {
    let server = answering(ResponseTemplate::new(429).insert_header("retry-after-ms", "100")).await;
    let remote = builder(&server.uri()).retry(patient(2)).backend().unwrap();
    let started = Instant::now();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::RateLimited, 3));
    // Both waits are among it.
    let elapsed = error.elapsed().unwrap();
    assert!(elapsed >= Duration::from_millis(200) && elapsed <= started.elapsed(), "{elapsed:?}");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(100)));
    assert_eq!(requests(&server).await.len(), 3);
}

#[tokio::test]
async fn each_try_of_an_edit_sends_its_files_whole() {
    let folder = Folder::new();
    let server = failing_once(ResponseTemplate::new(429)).await;
    let (image, mask) = (Input::path(folder.file("cat.png", PNG)), Input::path(folder.file("mask.png", PNG)));
    let mut spec = edit_spec(vec![image]);
    spec.mask = Some(mask);
    remote(&server).edit(spec, RequestContext::default()).await.unwrap();
    let sent: Vec<_> = requests(&server).await.iter().map(parts).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
    assert!(sent[1].contains(&Part::file("image", "cat.png", "image/png", PNG)), "{:?}", sent[1]);
}

#[tokio::test]
async fn connecting_has_a_time_of_its_own_and_is_tried_again() {
    // It takes connections and never answers the first words of TLS.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}", silent.local_addr().unwrap());
    let remote = builder(&uri).connect_timeout(Duration::from_millis(200)).retry(patient(1)).backend().unwrap();
    let started = Instant::now();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Timeout, false, 2));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_that_was_kept_and_then_closed_is_not_used_again() {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ONE_ADDRESS}", ONE_ADDRESS.len());
    let server = RawServer::start(Act::Say(answer.into_bytes())).await;
    let remote = builder(&server.uri).retry(RetryPolicy::none()).backend().unwrap();
    for _ in 0..5 {
        generate(&remote).await.unwrap();
        // The end of the connection arrives.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(server.requests(), 5);
}

#[tokio::test]
async fn retry_after_is_waited_for_in_seconds_milliseconds_and_as_a_date() {
    for (name, value) in [("retry-after", "1"), ("retry-after-ms", "1000"), ("retry-after", "date")] {
        // A date has whole seconds, so this one is 1.5 to 2.5 seconds away.
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_millis(2500));
        let value = if value == "date" { &date } else { value };
        let server = failing_once(ResponseTemplate::new(429).insert_header(name, value)).await;
        let started = Instant::now();
        generate(&remote(&server)).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(900), "{name}: {value}");
    }
}

#[tokio::test]
async fn a_retry_after_of_days_is_not_obeyed() {
    let server = failing_once(ResponseTemplate::new(429).insert_header("retry-after", "259200")).await;
    let remote =
        builder(&server.uri()).retry(RetryPolicy::default().max_wait(Duration::from_millis(20))).backend().unwrap();
    let started = Instant::now();
    generate(&remote).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_ends_the_call_at_once() {
    let server = answering(ResponseTemplate::new(429).insert_header("retry-after", "30")).await;
    let remote = builder(&server.uri()).timeout(Duration::from_secs(5)).backend().unwrap();
    let started = Instant::now();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(30))));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_total_deadline_is_not_multiplied_by_retries() {
    let slow = json(200, ONE_ADDRESS).set_delay(Duration::from_secs(20));
    let server = answering(slow).await;
    let remote = builder(&server.uri())
        .timeout(Duration::from_millis(900))
        .first_byte_timeout(Duration::from_millis(300))
        .retry(patient(100).may_bill_twice())
        .backend()
        .unwrap();
    let started = Instant::now();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.maybe_billed());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_request_has_one_deadline_whatever_the_layers_make_of_it() {
    let silent = RawServer::start(Act::SayAndHang(Vec::new())).await;
    let remote = builder(&silent.uri).retry(RetryPolicy::none()).backend().unwrap();
    let policy = RetryPolicy::default().max_retries(9).may_bill_twice();
    let both = Fallback::new(remote.clone()).then(remote).even_if_billed();
    let mut context = RequestContext::default();
    context.deadline = Some(Instant::now() + Duration::from_secs(1));
    let started = Instant::now();
    let error = Retry::new(both, policy).generate(generate_spec(), context).await.unwrap_err();
    assert_eq!((error.kind(), silent.requests()), (ErrorKind::Timeout, 1), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_callers_deadline_holds_where_it_is_earlier() {
    let server = answering(json(200, ONE_ADDRESS).set_delay(Duration::from_secs(20))).await;
    let mut context = RequestContext::default();
    context.deadline = Some(Instant::now() + Duration::from_millis(300));
    let started = Instant::now();
    let error = generate_with(&remote(&server), context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn dropping_the_call_stops_it() {
    let server = answering(ResponseTemplate::new(429).insert_header("retry-after", "1")).await;
    let remote = remote(&server);
    let call = tokio::time::timeout(Duration::from_millis(300), generate(&remote)).await;
    assert!(call.is_err());
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(requests(&server).await.len(), 1);
}
