//! Settings of a single call: headers, the retry policy and its progress, and the server's name of the model.

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
    Client::new(remote).images().generate("a cat").send().await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&requests[0].body).unwrap()["model"], "my-alias");
}
