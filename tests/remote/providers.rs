//! The two providers behind the gateway, without it.

use std::time::Duration;

use lumenfall::RetryPolicy;
use lumenfall::backend::{Backend, Content, Progress, Request, RequestContext};
use lumenfall::remote::{FalBackend, ReplicateBackend};
use lumenfall::{Client, Error, ErrorKind, Input, OutputFormat, ResponseFormat, Sampling, SkipLayerGuidance};
use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{KEY, PNG, count, edit_spec, generate_spec, listening, on, requests};

const FAL: &str = "/fal-ai/stable-diffusion-v35-medium";
const REPLICATE: &str = "/models/stability-ai/stable-diffusion-3.5-medium/predictions";

fn fal(server: &MockServer) -> FalBackend {
    let builder = Client::builder().api_key(KEY).base_url(server.uri()).retry(RetryPolicy::none());
    builder.fal().unwrap().poll_interval(Duration::from_millis(10))
}

fn replicate(server: &MockServer) -> ReplicateBackend {
    let builder = Client::builder().api_key(KEY).base_url(server.uri());
    builder.replicate().unwrap().poll_interval(Duration::from_millis(10))
}

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

/// A queue that takes a job; its own addresses lead elsewhere.
async fn queue() -> MockServer {
    let server = MockServer::start().await;
    let elsewhere = "https://evil.example/steal";
    let taken =
        json!({ "request_id": "r1", "response_url": elsewhere, "status_url": elsewhere, "cancel_url": elsewhere });
    on(&server, "POST", FAL, None, ok(taken)).await;
    server
}

async fn status(server: &MockServer, times: Option<u64>, answer: ResponseTemplate) {
    on(server, "GET", &format!("{FAL}/requests/r1/status"), times, answer).await;
}

#[tokio::test]
async fn fal_is_submitted_once_and_asked_until_it_has_ended() {
    let server = queue().await;
    status(&server, Some(1), ok(json!({ "status": "IN_QUEUE", "queue_position": 2 }))).await;
    status(&server, Some(1), ResponseTemplate::new(500)).await;
    status(&server, Some(1), ok(json!({ "status": "IN_PROGRESS" }))).await;
    status(&server, None, ok(json!({ "status": "COMPLETED" }))).await;
    let result = json!({
        "images": [{ "url": "https://files.example/1.png" }, { "url": "https://files.example/2.png" }],
        "seed": 7, "has_nsfw_concepts": [false, true]
    });
    on(&server, "GET", &format!("{FAL}/requests/r1"), None, ok(result)).await;

    let mut spec = generate_spec();
    let options = &mut spec.options;
    options.size = Some("1024x768".parse().unwrap());
    options.n = Some(2);
    options.output_format = Some(OutputFormat::Jpeg);
    options.sampling = Sampling {
        seed: Some(7),
        steps: Some(28),
        guidance: Some(4.6),
        negative_prompt: Some("blur".into()),
        ..Sampling::default()
    };
    options.extra.insert("enable_safety_checker".into(), true.into());
    let (context, heard) = listening();
    let output = fal(&server).generate(spec, context).await.unwrap();

    assert_eq!(output.images[1].content, Content::Address("https://files.example/2.png".into()));
    assert_eq!((output.images[0].seed, output.images[1].seed), (Some(7), None));
    assert_eq!(output.metadata.request_id.as_deref(), Some("r1"));
    assert!(output.metadata.warnings[0].contains("image 2"), "{:?}", output.metadata.warnings);
    assert_eq!(*heard.lock().unwrap(), [Progress::Queued { position: Some(2) }, Progress::Running]);
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.headers["authorization"] == format!("Key {KEY}")));
    assert_eq!(
        requests[0].body_json::<Value>().unwrap(),
        json!({
            "prompt": "a cat", "image_size": { "width": 1024, "height": 768 }, "num_images": 2, "output_format": "jpeg",
            "seed": 7, "num_inference_steps": 28, "guidance_scale": 4.6, "negative_prompt": "blur",
            "enable_safety_checker": true
        })
    );
    assert_eq!(count(&server, "POST", "").await, 1);
    assert_eq!(count(&server, "PUT", "").await, 0);
}

#[tokio::test]
async fn fal_knows_shapes_by_its_own_names_and_prices_them() {
    for (ratio, name, megapixels) in [
        ("1:1", "square_hd", 1.048_576),
        ("4:3", "landscape_4_3", 0.786_432),
        ("3:4", "portrait_4_3", 0.786_432),
        ("16:9", "landscape_16_9", 0.786_432),
        ("9:16", "portrait_16_9", 0.786_432),
    ] {
        let server = queue().await;
        status(&server, None, ok(json!({ "status": "COMPLETED" }))).await;
        let result = json!({ "images": [{ "url": "https://files.example/1.png" }] });
        on(&server, "GET", &format!("{FAL}/requests/r1"), None, ok(result)).await;
        let (mut by_size, mut by_ratio) = (generate_spec(), generate_spec());
        by_size.options.size = Some(ratio.parse().unwrap());
        by_ratio.options.aspect_ratio = Some(ratio.parse().unwrap());
        for spec in [by_size, by_ratio] {
            let estimate = fal(&server).estimate(Request::Generate(spec.clone()), RequestContext::default()).await;
            assert!((estimate.unwrap().total.amount - 0.02 * megapixels).abs() < 1e-9, "{ratio}");
            fal(&server).generate(spec, RequestContext::default()).await.unwrap();
            let sent = requests(&server).await.into_iter().rfind(|request| request.method == "POST").unwrap();
            assert_eq!(sent.body_json::<Value>().unwrap()["image_size"], name, "{ratio}");
        }
    }
}

#[tokio::test]
async fn a_job_of_fal_that_has_failed_is_not_asked_about_for_ever() {
    let server = queue().await;
    status(&server, None, ok(json!({ "status": "FAILED", "error": format!("no GPU for {KEY}") }))).await;
    let error = fal(&server).generate(generate_spec(), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), error.request_id()), (ErrorKind::Upstream, true, Some("r1")));
    assert!(error.to_string().starts_with("the job ended as FAILED: no GPU for [key]"), "{error}");
}

#[tokio::test]
async fn a_result_that_is_lost_names_the_request() {
    let server = queue().await;
    status(&server, None, ok(json!({ "status": "COMPLETED" }))).await;
    on(&server, "GET", &format!("{FAL}/requests/r1"), None, ResponseTemplate::new(500)).await;
    let error = fal(&server).generate(generate_spec(), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.request_id(), error.maybe_billed()), (Some("r1"), true));
}

#[tokio::test]
async fn a_validation_error_is_told_in_the_providers_words() {
    let server = MockServer::start().await;
    let detail = json!({ "detail": [{ "loc": ["body", "seed"], "msg": "seed is too large", "type": "value_error" }] });
    on(&server, "POST", FAL, None, ResponseTemplate::new(422).set_body_json(detail)).await;
    let error = fal(&server).generate(generate_spec(), RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("seed is too large"), "{error}");
}

#[tokio::test]
async fn what_a_provider_does_not_take_is_refused_by_name_and_nothing_sent() {
    let server = MockServer::start().await;
    let (fal, replicate) = (fal(&server), replicate(&server));
    let skip = Some(SkipLayerGuidance::default());
    type Change = fn(&mut lumenfall::backend::Options);
    let both: [(&str, Change); 5] = [
        ("resolution", |options| options.resolution = Some("1K".parse().unwrap())),
        ("output_compression", |options| options.output_compression = Some(80)),
        ("user", |options| options.user = Some("u".into())),
        ("strength", |options| options.sampling.strength = Some(0.5)),
        ("output_format", |options| options.output_format = Some(OutputFormat::Avif)),
    ];
    let one: [(&dyn Backend, &str, Change); 7] = [
        (&fal, "size", |options| options.size = Some("5:4".parse().unwrap())),
        (&replicate, "guidance", |options| options.sampling.guidance = Some(0.5)),
        (&replicate, "guidance", |options| options.sampling.guidance = Some(10.5)),
        (&fal, "aspect_ratio", |options| options.aspect_ratio = Some("5:4".parse().unwrap())),
        (&fal, "provider", |options| options.provider = Some("replicate".into())),
        (&replicate, "size", |options| options.size = Some("512x512".parse().unwrap())),
        (&replicate, "steps", |options| options.sampling.steps = Some(3)),
    ];
    let backends: [&dyn Backend; 2] = [&fal, &replicate];
    let all = backends.iter().flat_map(|backend| both.iter().map(move |(name, change)| (*backend, *name, *change)));
    for (backend, name, change) in all.chain(one) {
        let mut spec = generate_spec();
        change(&mut spec.options);
        let error = backend.generate(spec, RequestContext::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some(name)), "{backend:?}");
    }
    for backend in backends {
        let mut spec = generate_spec();
        spec.options.sampling.skip_layer_guidance = skip.clone();
        let error = backend.generate(spec, RequestContext::default()).await.unwrap_err();
        assert_eq!(error.parameter(), Some("skip_layer_guidance"));
        let mut spec = generate_spec();
        spec.model = "another".into();
        let error = backend.generate(spec, RequestContext::default()).await.unwrap_err();
        assert_eq!(error.parameter(), Some("model"));
    }
    let edit = || edit_spec(vec![Input::bytes(PNG)]);
    let error = fal.edit(edit(), RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let mut masked = edit();
    masked.prompt = Some("stars".into());
    masked.mask = Some(Input::bytes(PNG));
    let shaped = |change: Change| {
        let mut spec = edit();
        spec.prompt = Some("stars".into());
        change(&mut spec.options);
        spec
    };
    let mut two = shaped(|_| {});
    two.images.push(Input::bytes(PNG));
    for (spec, name) in [
        (edit(), "prompt"),
        (masked, "mask"),
        (two, "image"),
        (shaped(|options| options.size = Some("16:9".parse().unwrap())), "size"),
        (shaped(|options| options.size = Some("512x512".parse().unwrap())), "size"),
        (shaped(|options| options.aspect_ratio = Some("16:9".parse().unwrap())), "aspect_ratio"),
    ] {
        let error = replicate.edit(spec, RequestContext::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some(name)));
    }
    assert!(requests(&server).await.is_empty());
}

/// A prediction `id` with one answer when it is asked about.
async fn prediction(server: &MockServer, seed: u64, id: &str, ended: Value) {
    Mock::given(method("POST"))
        .and(path(REPLICATE))
        .and(body_partial_json(json!({ "input": { "seed": seed } })))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({ "id": id, "status": "starting" })))
        .mount(server)
        .await;
    let at = format!("/predictions/{id}");
    on(server, "GET", &at, Some(1), ok(json!({ "id": id, "status": "starting" }))).await;
    on(server, "GET", &at, Some(1), ok(json!({ "id": id, "status": "processing" }))).await;
    on(server, "GET", &at, None, ok(ended)).await;
}

async fn two_from_replicate(second: Value) -> (MockServer, Result<lumenfall::backend::Output, Error>) {
    let server = MockServer::start().await;
    prediction(&server, 7, "p0", json!({ "status": "succeeded", "output": ["https://files.example/0.webp"] })).await;
    prediction(&server, 8, "p1", second).await;
    let mut spec = generate_spec();
    spec.options.n = Some(2);
    spec.options.aspect_ratio = Some("16:9".parse().unwrap());
    spec.options.sampling.seed = Some(7);
    spec.options.sampling.guidance = Some(4.6);
    let output = replicate(&server).generate(spec, RequestContext::default()).await;
    (server, output)
}

#[tokio::test]
async fn replicate_makes_each_image_by_a_prediction_of_its_own() {
    let (server, output) =
        two_from_replicate(json!({ "status": "succeeded", "output": "https://files.example/1.webp" })).await;
    let output = output.unwrap();
    let seeds: Vec<_> = output.images.iter().map(|image| image.seed).collect();
    assert_eq!(seeds, [Some(7), Some(8)]);
    assert!(output.metadata.warnings.is_empty());
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.headers["authorization"] == format!("Bearer {KEY}")));
    assert_eq!(
        requests[0].body_json::<Value>().unwrap(),
        json!({ "input": { "prompt": "a cat", "aspect_ratio": "16:9", "cfg": 4.6, "seed": 7 } })
    );
    assert_eq!(count(&server, "POST", "").await, 2);
}

#[tokio::test]
async fn the_images_of_other_predictions_outlive_one_that_failed() {
    let (_server, output) = two_from_replicate(json!({ "status": "failed", "error": "out of memory" })).await;
    let output = output.unwrap();
    assert_eq!(output.images.len(), 1);
    assert!(output.metadata.warnings[0].contains("out of memory"), "{:?}", output.metadata.warnings);
    // Both together cost no more than the request was to cost.
    assert_eq!(output.metadata.lost_bills, 0);
}

#[tokio::test]
async fn a_prediction_that_failed_tells_why() {
    for status in ["failed", "canceled", "aborted"] {
        let server = MockServer::start().await;
        let why = format!("out of memory, key {KEY}");
        prediction(&server, 1, "p0", json!({ "status": status, "error": why })).await;
        let mut spec = generate_spec();
        spec.options.sampling.seed = Some(1);
        let error = replicate(&server).generate(spec, RequestContext::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.request_id()), (ErrorKind::Upstream, Some("p0")));
        assert_eq!((error.maybe_billed_tries(), error.made_nothing()), (1, false));
        let said = error.to_string();
        assert!(said.contains(&format!("{status}: out of memory, key [key]")), "{said}");
    }
}

#[tokio::test]
async fn replicate_edits_an_image_inside_the_request_and_bytes_come_without_the_key() {
    let server = MockServer::start().await;
    let address = format!("{}/files/1.png", server.uri());
    prediction(&server, 1, "p0", json!({ "status": "succeeded", "output": [address] })).await;
    on(&server, "GET", "/files/1.png", None, ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let mut spec = edit_spec(vec![Input::bytes(PNG)]);
    spec.prompt = Some("stars".into());
    spec.options.response_format = Some(ResponseFormat::B64Json);
    spec.options.sampling.seed = Some(1);
    spec.options.sampling.strength = Some(0.6);
    let output = replicate(&server).edit(spec, RequestContext::default()).await.unwrap();
    assert_eq!(output.images[0].content, Content::Bytes(PNG.into()));
    assert_eq!(output.metadata.request_id.as_deref(), Some("p0"));

    let requests = requests(&server).await;
    let image = format!("data:image/png;base64,{}", base64_simd::STANDARD.encode_to_string(PNG));
    assert_eq!(
        requests[0].body_json::<Value>().unwrap(),
        json!({ "input": { "prompt": "stars", "image": image, "prompt_strength": 0.6, "seed": 1 } })
    );
    let download = requests.iter().find(|request| request.url.path() == "/files/1.png").unwrap();
    assert!(!download.headers.contains_key("authorization"));
}

#[tokio::test]
async fn prices_are_told_offline() {
    let server = MockServer::start().await;
    let mut spec = generate_spec();
    spec.options.size = Some("1000x1000".parse().unwrap());
    let estimate = fal(&server).estimate(Request::Generate(spec.clone()), RequestContext::default()).await.unwrap();
    assert!((estimate.total.amount - 0.02).abs() < 1e-9);
    spec.options.size = None;
    spec.options.n = Some(3);
    let estimate = replicate(&server).estimate(Request::Generate(spec), RequestContext::default()).await.unwrap();
    assert!((estimate.total.amount - 0.105).abs() < 1e-9);
    assert!(requests(&server).await.is_empty());
}

#[test]
fn a_missing_key_names_the_providers_variable() {
    for (error, variable) in [
        (Client::builder().fal().unwrap_err(), "FAL_KEY"),
        (Client::builder().replicate().unwrap_err(), "REPLICATE_API_TOKEN"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(variable), "{error}");
    }
}
