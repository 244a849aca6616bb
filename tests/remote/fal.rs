//! fal.ai: requests in its own parameters, and its results and errors. `jobs.rs` tests what it shares with Replicate.

use crate::support::*;

const SUBMIT: &str = "/fal-ai/stable-diffusion-v35-medium";
const RESULT: &str = "/fal-ai/stable-diffusion-v35-medium/requests/r1";
const STATUS: &str = "/fal-ai/stable-diffusion-v35-medium/requests/r1/status";

fn fal(server: &MockServer) -> Fal {
    let builder = Fal::builder().api_key(KEY).base_url(server.uri()).retry(RetryPolicy::none());
    builder.poll_interval(Duration::from_millis(1)).build().unwrap()
}

/// A server with these responses to the submission, to the second status request and to the request for the result.
async fn server(submit: (u16, Value), status: Value, result: (u16, Value)) -> MockServer {
    let server = MockServer::start().await;
    on(&server, "POST", SUBMIT, None, json_response(submit.0, submit.1)).await;
    on(&server, "GET", STATUS, Some(1), json_response(200, json!({ "status": "IN_QUEUE", "queue_position": 2 }))).await;
    on(&server, "GET", STATUS, None, json_response(200, status)).await;
    on(&server, "GET", RESULT, None, json_response(result.0, result.1)).await;
    server
}

fn submitted() -> (u16, Value) {
    (200, json!({ "request_id": "r1" }))
}

fn completed() -> Value {
    json!({ "status": "COMPLETED" })
}

#[tokio::test]
async fn a_request_uses_fals_parameters_and_all_images_of_the_result_are_returned() {
    let result = json!({
        "images": [{ "url": "https://files.example/1.png" }, { "url": "https://files.example/2.png" }],
        "seed": 7, "has_nsfw_concepts": [false, true]
    });
    let server = server(submitted(), completed(), (200, result)).await;
    let mut spec = generate_spec();
    let options = &mut spec.options;
    options.size = Some("1024x768".parse().unwrap());
    options.n = Some(2);
    options.output_format = Some(OutputFormat::Jpeg);
    options.sampling.seed = Some(7);
    options.sampling.steps = Some(28);
    options.sampling.guidance = Some(4.6);
    options.sampling.negative_prompt = Some("blur".into());
    options.extra.insert("enable_safety_checker".into(), true.into());
    let (context, reported) = progress();
    let estimate = fal(&server).estimate(Request::Generate(spec.clone()), RequestContext::default()).await.unwrap();
    assert!((estimate.total.amount() - 2.0 * 0.02 * 0.786_432).abs() < 1e-6, "{estimate:?}");
    let output = fal(&server).send(spec.into(), context).await.unwrap();

    assert_eq!(output.images[1].content, Content::Url("https://files.example/2.png".into()));
    assert_eq!((output.images[0].seed, output.images[1].seed), (Some(7), None));
    assert_eq!(output.metadata.request_id.as_deref(), Some("r1"));
    assert!(output.metadata.warnings[0].contains("image 2"), "{:?}", output.metadata.warnings);
    assert_eq!(*reported.lock().unwrap(), [Progress::Queued { position: Some(2) }]);
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.headers["authorization"] == format!("Key {KEY}")));
    assert_eq!(
        sent_json(&server).await,
        json!({
            "prompt": "a cat", "image_size": { "width": 1024, "height": 768 }, "num_images": 2, "output_format": "jpeg",
            "seed": 7, "num_inference_steps": 28, "guidance_scale": 4.6, "negative_prompt": "blur",
            "enable_safety_checker": true
        })
    );
}

#[tokio::test]
async fn a_ratio_is_sent_as_fals_preset_and_priced_by_its_size() {
    let result = json!({ "images": [{ "url": "https://files.example/1.png" }] });
    let server = server(submitted(), completed(), (200, result)).await;
    let fal = fal(&server);
    for (ratio, preset, megapixels) in [
        ("1:1", "square_hd", 1.048_576),
        ("4:3", "landscape_4_3", 0.786_432),
        ("3:4", "portrait_4_3", 0.786_432),
        ("16:9", "landscape_16_9", 0.786_432),
        ("9:16", "portrait_16_9", 0.786_432),
    ] {
        let (mut by_size, mut by_ratio) = (generate_spec(), generate_spec());
        by_size.options.size = Some(ratio.parse().unwrap());
        by_ratio.options.aspect_ratio = Some(ratio.parse().unwrap());
        for spec in [by_size, by_ratio] {
            let estimate = fal.estimate(Request::Generate(spec.clone()), RequestContext::default()).await;
            assert!((estimate.unwrap().total.amount() - 0.02 * megapixels).abs() < 1e-6, "{ratio}");
            send(&fal, spec).await.unwrap();
            let sent = requests(&server).await.into_iter().rfind(|request| request.method == "POST").unwrap();
            assert_eq!(sent.body_json::<Value>().unwrap()["image_size"], preset, "{ratio}");
        }
    }
}

#[tokio::test]
async fn errors_contain_fals_explanation_and_those_of_a_job_its_id() {
    let failed = json!({ "status": "FAILED", "error": format!("no GPU for {KEY}") });
    let invalid = json!({ "detail": [{ "loc": ["body", "seed"], "msg": "seed is too large", "type": "value_error" }] });
    for (submit, status, result, kind, fact) in [
        (submitted(), failed, json!({}), ErrorKind::Upstream, "no GPU for [key]"),
        (submitted(), completed(), json!({ "detail": "no memory" }), ErrorKind::Upstream, "no memory"),
        ((422, invalid), completed(), json!({}), ErrorKind::InvalidRequest, "seed is too large"),
    ] {
        let error = send(&fal(&server(submit, status, (500, result)).await), generate_spec()).await.unwrap_err();
        let is_job = kind == ErrorKind::Upstream;
        assert_eq!((error.kind(), error.maybe_billed()), (kind, is_job));
        assert_eq!(error.request_id(), is_job.then_some("r1"));
        assert!(error.to_string().contains(fact), "{error}");
    }
}

/// These errors end the call at once. Without the error, each status would be polled until the deadline.
#[tokio::test]
async fn an_error_of_the_job_itself_is_final_at_once() {
    let error = |status: u16, detail: &str| json_response(status, json!({ "detail": detail }).to_string());
    let typed = |status, name: &str| error(status, "it failed").insert_header("X-Fal-Error-Type", name);
    let statuses = [
        json!({ "status": "COMPLETED", "error": "Runner disconnected", "error_type": "runner_disconnected" }),
        json!({ "status": "COMPLETED", "error_type": "request_timeout" }),
        json!({ "status": "COMPLETED", "error": "NSFW content detected" }),
    ];
    let ended = statuses.map(|status| (status, error(200, "")));
    let results = [
        typed(503, "runner_disconnected"),
        typed(504, "request_timeout"),
        error(422, "flagged by a content checker: content policy").insert_header("x-fal-request-id", "r1"),
        typed(404, "bad_request"),
    ];
    let results = results.map(|result| (completed(), result));
    let expected = [
        (ErrorKind::Upstream, Some("runner_disconnected"), "Runner disconnected"),
        (ErrorKind::Timeout, Some("request_timeout"), "COMPLETED"),
        (ErrorKind::ContentPolicy, None, "NSFW content detected"),
        (ErrorKind::Upstream, Some("runner_disconnected"), "it failed"),
        (ErrorKind::Timeout, Some("request_timeout"), "it failed"),
        (ErrorKind::ContentPolicy, None, "content policy"),
        (ErrorKind::NotFound, Some("bad_request"), "it failed"),
    ];
    for ((status, result), (kind, code, fact)) in ended.into_iter().chain(results).zip(expected) {
        let server = MockServer::start().await;
        on(&server, "POST", SUBMIT, None, json_response(200, submitted().1)).await;
        on(&server, "GET", STATUS, None, json_response(200, status)).await;
        on(&server, "GET", RESULT, None, result).await;
        let builder = Fal::builder().api_key(KEY).base_url(server.uri()).timeout(Duration::from_secs(5));
        let fal = builder.poll_interval(Duration::from_millis(1)).build().unwrap();
        let error = send(&fal, generate_spec()).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.maybe_billed()), (kind, code, true), "{error}");
        assert!(error.to_string().contains(fact), "{error}");
        assert!(requests(&server).await.len() <= 3, "a submission, a status and at most one result");
    }
}
