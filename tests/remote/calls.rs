//! Settings of a single call: headers, the retry policy and its progress, and the server's name of the model.

use crate::support::providers::{PROVIDERS, Script, Settings, status};
use crate::support::*;

async fn server() -> MockServer {
    let server = MockServer::start().await;
    let body: Value = serde_json::from_str(ONE_URL).unwrap();
    Mock::given(wiremock::matchers::any())
        .respond_with(ResponseTemplate::new(200).set_body_json(body))
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn headers_of_a_call_are_sent_with_it_and_only_with_it() {
    let server = server().await;
    let client = Client::new(remote(&server.uri()));
    client.images().generate("a cat").header("x-job", "7").send().await.unwrap();
    client.images().edit(Input::bytes(PNG)).header("x-job", "8").send().await.unwrap();
    client.images().generate("a cat").send().await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let seen: Vec<_> = requests.iter().map(|request| request.headers.get("x-job").map(|job| job.as_bytes())).collect();
    assert_eq!(seen, [Some(&b"7"[..]), Some(b"8"), None]);

    for (name, value) in [("x job", "7"), ("x-job", "7\n"), ("authorization", "Bearer other"), ("content-type", "a/b")]
    {
        let error = client.images().generate("a cat").header(name, value).send().await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::InvalidRequest, false), "{name}");
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 3);
}

#[test]
fn the_retry_policy_of_a_call_replaces_that_of_the_backend_and_retries_are_reported() {
    paused(async {
        let rate_limit = Act::Send(response("429 Too Many Requests", "retry-after: 5\r\n", ""));
        let server = RawServer::start([rate_limit]).await;
        let client = Client::new(builder(&server.uri).retry(RetryPolicy::none()).build().unwrap());
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let request = client
            .images()
            .generate("a cat")
            .retry(RetryPolicy::default().max_retries(2))
            .on_progress(move |progress| seen.lock().unwrap().push(progress));
        assert_eq!(request.send().await.unwrap_err().attempts(), 3);
        let wait = Duration::from_secs(5);
        let expected = [2, 3].map(|attempt| Progress::Retrying { attempt, wait });
        assert_eq!(*reports.lock().unwrap(), expected);
        assert_eq!(generate(&remote(&server.uri)).await.unwrap_err().attempts(), 4, "the default policy");
    });
}

#[test]
fn no_retry_starts_after_the_maximum_time() {
    paused(async {
        let rate_limit = Act::Send(response("429 Too Many Requests", "retry-after: 10\r\n", ""));
        let server = RawServer::start([rate_limit]).await;
        let policy = RetryPolicy::default().max_retries(100).max_elapsed(Duration::from_secs(35));
        let start = Instant::now();
        let error = generate(&builder(&server.uri).retry(policy).build().unwrap()).await.unwrap_err();
        assert_eq!((error.attempts(), start.elapsed().as_secs()), (4, 30));
    });
}

#[tokio::test]
async fn the_model_has_the_name_that_the_server_knows() {
    let server = server().await;
    let remote = builder(&server.uri()).model_name("my-alias").build().unwrap();
    assert_ne!(remote.identity(), builder(&server.uri()).build().unwrap().identity());
    let client = Client::new(remote);
    client.images().generate("a cat").send().await.unwrap();
    client.images().edit(Input::bytes(PNG)).send().await.unwrap();
    let mut pinned = generate_spec();
    pinned.options.provider = Some("fal".to_owned());
    client.backend().send(pinned.into(), RequestContext::default()).await.unwrap();
    let requests = requests(&server).await;
    let model = |index: usize| serde_json::from_slice::<Value>(&requests[index].body).unwrap()["model"].clone();
    assert_eq!([model(0), model(2)], ["my-alias", "fal/my-alias"]);
    let form = String::from_utf8_lossy(&requests[1].body);
    assert!(form.contains("my-alias") && !form.contains(MODEL), "{form}");
    for name in ["", " "] {
        let error = builder(&server.uri()).model_name(name).build().unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("model_name")));
    }
}

/// The value of a header of a call, which a server may quote.
const SECRET: &str = "token-of-this-call-4712";

/// Returns a context with a secret header.
fn with_header() -> RequestContext {
    let mut context = RequestContext::default();
    context.headers = vec![("x-token".to_owned(), SECRET.to_owned())];
    context
}

#[tokio::test]
async fn header_values_of_a_call_are_removed_from_messages() {
    let quoting = json!({ "error": { "message": format!("the token {SECRET} is not known"), "code": SECRET } });
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any()).respond_with(json_response(403, quoting)).mount(&server).await;
    let remote = gateway(&server.uri());
    let errors = [
        remote.send(generate_spec().into(), with_header()).await.unwrap_err(),
        remote.send(edit_spec([Input::bytes(PNG)]).into(), with_header()).await.unwrap_err(),
        remote.estimate(generate_spec().into(), with_header()).await.unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error} {error:?} {:?}", with_header());
        assert!(text.contains("the token [secret] is not known") && !text.contains(SECRET), "{text}");
    }

    for (service, status) in [("fal", "FAILED"), ("replicate", "failed")] {
        let body = json!({ "id": "j1", "request_id": "j1", "status": status, "error": format!("bad {SECRET}") });
        let server = MockServer::start().await;
        Mock::given(wiremock::matchers::any()).respond_with(json_response(200, body)).mount(&server).await;
        let backend: Box<dyn Backend> = match service {
            "fal" => Box::new(Fal::builder().api_key(KEY).base_url(server.uri()).build().unwrap()),
            _ => Box::new(Replicate::builder().api_key(KEY).base_url(server.uri()).build().unwrap()),
        };
        let error = backend.send(generate_spec().into(), with_header()).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("bad [secret]") && !text.contains(SECRET), "{text}");
        // The request for the status has the header, too.
        let requests = requests(&server).await;
        let tokens: Vec<_> = requests.iter().map(|request| &request.headers["x-token"]).collect();
        assert_eq!(tokens, [SECRET; 2], "{service}");
    }
}

#[test]
fn an_estimate_has_the_headers_and_the_retry_policy_of_its_call_and_reports_retries() {
    paused(async {
        let rate_limit = Act::Send(response("429 Too Many Requests", "retry-after: 5\r\n", ""));
        let server = RawServer::start([rate_limit]).await;
        let remote = gateway(&server.uri);
        let (mut context, reported) = progress();
        context.retry = Some(RetryPolicy::default().max_retries(1));
        let error = remote.estimate(generate_spec().into(), context).await.unwrap_err();
        assert_eq!((error.attempts(), server.requests()), (2, 2));
        assert_eq!(*reported.lock().unwrap(), [Progress::Retrying { attempt: 2, wait: Duration::from_secs(5) }]);
        let mut context = with_header();
        context.headers[0].0 = "x token".to_owned();
        let error = remote.estimate(generate_spec().into(), context).await.unwrap_err();
        assert_eq!((error.kind(), server.requests()), (ErrorKind::InvalidRequest, 2));
    });
}

#[tokio::test]
async fn an_estimate_sends_the_headers_of_its_call_and_the_name_that_the_server_knows() {
    let server = server().await;
    let remote = builder(&server.uri()).native_url(server.uri()).model_name("my-alias").build().unwrap();
    remote.estimate(generate_spec().into(), with_header()).await.unwrap_err();
    let requests = requests(&server).await;
    assert_eq!(requests[0].headers["x-token"], SECRET);
    assert_eq!(serde_json::from_slice::<Value>(&requests[0].body).unwrap()["model"], "my-alias");
}

#[tokio::test]
async fn headers_of_a_call_replace_those_of_the_backend_and_are_not_sent_with_downloads() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let remote = builder(&server.uri()).header("x-token", "of the backend").build().unwrap();
    let identity = remote.identity();
    let client = Client::new(remote.clone());
    client.images().generate("a cat").header("x-token", SECRET).inline().send().await.unwrap();
    client.images().generate("a cat").send().await.unwrap();
    let requests = requests(&server).await;
    let tokens = |method: &str| -> Vec<_> {
        let requests = requests.iter().filter(|request| request.method.as_str() == method);
        requests.map(|request| request.headers.get("x-token").map(|token| token.to_str().unwrap())).collect()
    };
    assert_eq!(tokens("POST"), [Some(SECRET), Some("of the backend")]);
    assert_eq!(tokens("GET"), [None]);
    assert_eq!(remote.identity(), identity);
}

#[test]
fn the_retry_policy_of_a_call_applies_to_submissions_and_to_the_downloads_of_the_call() {
    for provider in &PROVIDERS {
        paused(async {
            let submit = vec![status(503), status(503), Act::Send(provider.submitted())];
            let server = provider.server(Script { submit, ..provider.script() }).await;
            let backend = (provider.build)(Settings { retry: RetryPolicy::none(), ..Settings::new(&server) });
            let (mut context, reported) = progress();
            context.retry = Some(RetryPolicy::default().backoff(Duration::ZERO, Duration::ZERO));
            let output = backend.send(generate_spec().into(), context).await.unwrap();
            assert_eq!((output.metadata.attempts, server.count(provider.submit)), (3, 3), "{}", provider.name);
            let retries = [2, 3].map(|attempt| Progress::Retrying { attempt, wait: Duration::ZERO });
            assert_eq!(reported.lock().unwrap()[..2], retries);
        });
    }
    for (policy, downloads) in [(RetryPolicy::none(), 1), (RetryPolicy::default().max_retries(5), 6)] {
        paused(async {
            let server = RawServer::routed(|request, _| match request {
                "GET http://files.invalid/1.png" => Act::Send(response("503 Service Unavailable", "", "")),
                _ => Act::Send(response("200 OK", "", r#"{"data":[{"url":"http://files.invalid/1.png"}]}"#)),
            });
            let server = server.await;
            // The proxy is the server, so the URL of the image needs no port.
            let remote = builder("http://api.invalid").proxy(&server.uri).build().unwrap();
            let request = Client::new(remote).images().generate("a cat").retry(policy.clone()).inline();
            request.send().await.unwrap_err();
            assert_eq!(server.count("GET http://files.invalid/1.png"), downloads);
        });
    }
}

/// The download follows a redirect to a server that is overloaded, after the first server was.
#[test]
fn the_maximum_time_includes_all_redirects_of_a_download() {
    paused(async {
        let busy = || Act::Send(response("503 Service Unavailable", "retry-after: 10\r\n", ""));
        let moved = Act::Send(response("302 Found", "location: /moved.png\r\n", ""));
        let server = RawServer::routed(move |request, earlier| match (request, earlier) {
            ("GET /1.png", 2) => moved.clone(),
            _ => busy(),
        });
        let server = server.await;
        let policy = RetryPolicy::default().max_retries(100).max_elapsed(Duration::from_secs(35));
        let remote = builder(&server.uri).retry(policy).build().unwrap();
        let start = Instant::now();
        let error = remote.fetch(&format!("{}/1.png", server.uri)).await.err().unwrap();
        assert_eq!((error.status(), start.elapsed().as_secs()), (Some(503), 30));
        assert_eq!((server.count("GET /1.png"), server.count("GET /moved.png")), (3, 2));
    });
}
