//! Replicate: one prediction for each image, with Replicate's parameters. `jobs.rs` tests what it shares with fal.

use wiremock::matchers::{body_partial_json, method, path};

use crate::support::*;

const SUBMIT: &str = "/models/stability-ai/stable-diffusion-3.5-medium/predictions";

fn replicate(server: &MockServer) -> Replicate {
    let builder = Replicate::builder().api_key(KEY).base_url(server.uri());
    builder.poll_interval(Duration::from_millis(1)).build().unwrap()
}

/// Adds a prediction for the request with this seed, which ends with this status.
async fn prediction(server: &MockServer, seed: u64, id: &str, ended: Value) {
    let started = json_response(201, json!({ "id": id, "status": "starting" }));
    let submit = Mock::given(method("POST")).and(path(SUBMIT));
    let submit = submit.and(body_partial_json(json!({ "input": { "seed": seed } })));
    submit.respond_with(started.clone()).mount(server).await;
    let path = format!("/predictions/{id}");
    on(server, "GET", &path, Some(1), started).await;
    on(server, "GET", &path, None, json_response(200, ended)).await;
}

/// Requests two images. The first prediction succeeds and the second ends with this status.
async fn two_images(second: Value) -> (MockServer, Result<Output, Error>) {
    let server = MockServer::start().await;
    prediction(&server, 7, "p0", json!({ "status": "succeeded", "output": ["https://files.example/0.webp"] })).await;
    prediction(&server, 8, "p1", second).await;
    let mut spec = generate_spec();
    spec.options.n = Some(2);
    spec.options.aspect_ratio = Some("16:9".parse().unwrap());
    spec.options.sampling.seed = Some(7);
    spec.options.sampling.guidance = Some(4.6);
    let output = send(&replicate(&server), spec).await;
    (server, output)
}

#[tokio::test]
async fn each_image_has_its_own_prediction_and_seed() {
    let second = json!({ "status": "succeeded", "output": "https://files.example/1.webp" });
    let (server, output) = two_images(second).await;
    let output = output.unwrap();
    let images: Vec<_> = output.images.iter().map(|image| (image.seed, image.content.clone())).collect();
    let url = |i| Content::Url(format!("https://files.example/{i}.webp"));
    assert_eq!(images, [(Some(7), url(0)), (Some(8), url(1))]);
    assert!(output.metadata.warnings.is_empty());
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.headers["authorization"] == format!("Bearer {KEY}")));
    assert_eq!(
        sent_json(&server).await,
        json!({ "input": { "prompt": "a cat", "aspect_ratio": "16:9", "cfg": 4.6, "seed": 7 } })
    );
    assert_eq!(requests.iter().filter(|request| request.method == "POST").count(), 2);
}

#[tokio::test]
async fn a_failed_prediction_does_not_affect_the_images_of_others() {
    let (_server, output) = two_images(json!({ "status": "failed", "error": "out of memory" })).await;
    let output = output.unwrap();
    assert_eq!(output.images.len(), 1);
    assert!(output.metadata.warnings[0].contains("out of memory"), "{:?}", output.metadata.warnings);
    // Both predictions together cost no more than the requested images.
    assert_eq!(output.metadata.lost_bills, 0);
}

#[tokio::test]
async fn a_failed_prediction_contains_replicates_explanation_and_an_aborted_one_is_not_billed() {
    for (status, billed) in [("failed", 1), ("canceled", 1), ("aborted", 0)] {
        let server = MockServer::start().await;
        let explanation = format!("out of memory, key {KEY}");
        prediction(&server, 1, "p0", json!({ "status": status, "error": explanation })).await;
        let mut spec = generate_spec();
        spec.options.sampling.seed = Some(1);
        let error = send(&replicate(&server), spec).await.unwrap_err();
        assert_eq!((error.kind(), error.request_id()), (ErrorKind::Upstream, Some("p0")));
        assert_eq!((error.maybe_billed_attempts(), error.made_nothing()), (billed, billed == 0));
        let message = error.to_string();
        assert!(message.contains(status) && message.contains("out of memory, key [key]"), "{message}");
    }
}

#[tokio::test]
async fn an_edit_contains_its_image_and_bytes_are_downloaded_without_the_key() {
    let server = MockServer::start().await;
    let url = format!("{}/files/1.png", server.uri());
    prediction(&server, 1, "p0", json!({ "status": "succeeded", "output": [url] })).await;
    on(&server, "GET", "/files/1.png", None, ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let mut spec = edit_spec([Input::bytes(PNG)]);
    spec.prompt = Some("stars".into());
    spec.options.response_format = Some(lumenfall::ResponseFormat::B64Json);
    spec.options.sampling.seed = Some(1);
    spec.options.sampling.strength = Some(0.6);
    let output = send_edit(&replicate(&server), spec).await.unwrap();
    assert_eq!(output.images[0].content, Content::Bytes(PNG.into()));
    assert_eq!(output.metadata.request_id.as_deref(), Some("p0"));

    let requests = requests(&server).await;
    let image = format!("data:image/png;base64,{}", png_base64());
    assert_eq!(
        sent_json(&server).await,
        json!({ "input": { "prompt": "stars", "image": image, "prompt_strength": 0.6, "seed": 1 } })
    );
    let download = requests.iter().find(|request| request.url.path() == "/files/1.png").unwrap();
    assert!(!download.headers.contains_key("authorization"));
}

#[tokio::test]
async fn an_estimate_is_the_published_price_of_each_image() {
    let replicate = Replicate::builder().api_key(KEY).base_url(UNREACHABLE).build().unwrap();
    let mut spec = generate_spec();
    spec.options.n = Some(3);
    let estimate = replicate.estimate(Request::Generate(spec), RequestContext::default()).await.unwrap();
    assert!((estimate.total.amount() - 0.105).abs() < 1e-6, "{estimate:?}");
}

#[tokio::test]
async fn a_refused_prompt_is_a_content_policy_error() {
    for explanation in [
        "NSFW content detected. Try running it again, or try a different prompt.",
        "The input or output was flagged as sensitive. Please try again with different inputs. (E005)",
    ] {
        let server = MockServer::start().await;
        prediction(&server, 1, "p0", json!({ "status": "failed", "error": explanation })).await;
        let mut spec = generate_spec();
        spec.options.sampling.seed = Some(1);
        let error = send(&replicate(&server), spec).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::ContentPolicy, true));
    }
}

/// An account with little credit can submit one prediction at a time, and each rejection says how long to wait.
#[test]
fn throttled_predictions_are_submitted_one_after_another() {
    paused(async {
        let next = Arc::new(Mutex::new(Instant::now()));
        let accepted = Arc::clone(&next);
        let server = RawServer::routed(move |request, earlier| {
            if request.starts_with("GET") {
                return Act::Send(response("200 OK", "", r#"{"status":"succeeded","output":"https://files.example/1"}"#));
            }
            let mut next = accepted.lock().unwrap();
            if Instant::now() < *next {
                let body = r#"{"detail":"Request was throttled. Your rate limit resets in ~5s.","status":429,"retry_after":5}"#;
                return Act::Send(response("429 Too Many Requests", "", body));
            }
            *next = Instant::now() + Duration::from_secs(5);
            Act::Send(response("201 Created", "", format!(r#"{{"id":"p{earlier}"}}"#)))
        })
        .await;
        let builder = Replicate::builder().api_key(KEY).base_url(&server.uri);
        let replicate = builder.retry(RetryPolicy::default().max_retries(1)).build().unwrap();
        let mut spec = generate_spec();
        spec.options.n = Some(10);
        let started = Instant::now();
        let output = send(&replicate, spec).await.unwrap();
        assert_eq!((output.images.len(), &output.metadata.warnings), (10, &Vec::new()));
        assert!((45..60).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
        let submissions = server.count("POST /models/stability-ai/stable-diffusion-3.5-medium/predictions");
        assert_eq!(submissions, 10 + 9, "each of the nine rejected ones is repeated once");
    });
}
