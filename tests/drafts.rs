//! Requests whose parameters are set at run time.

// Clippy does not recognise helper functions as part of tests.
#![allow(clippy::unwrap_used)]

use std::thread;
use std::time::Duration;

use lumenfall::backend::{EditSpec, GenerateSpec, Options, Request};
use lumenfall::blocking::Wait;
use lumenfall::images::typed::{CONTROLS, Kind};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::testing::MockBackend;
use lumenfall::{Cancellation, Client, ErrorKind, Input};
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn a_draft_keeps_the_timeout_and_the_delivery_and_serves_many_prompts() {
    let backend = MockBackend::new().delay(Duration::from_secs(5));
    let client = Client::new(backend.clone());
    let draft = client.images().generate("first").seed(7).inline().timeout(Duration::from_secs(1)).into_draft();
    for prompt in ["second", "third"] {
        let error = draft.clone().prompt(prompt).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
    let images = draft.timeout(Duration::from_secs(9)).send().await.unwrap();
    assert!(!images[0].bytes().is_empty());
    let prompts: Vec<_> = backend
        .requests()
        .into_iter()
        .map(|request| match request {
            Request::Generate(spec) => (spec.prompt, spec.options.sampling.seed),
            Request::Edit(spec) => panic!("{spec:?}"),
        })
        .collect();
    assert_eq!(prompts, ["second", "third", "first"].map(|prompt| (prompt.to_owned(), Some(7))));
}

#[test]
fn parameters_are_set_by_name_and_checked_at_once() {
    let client = Client::new(MockBackend::new());
    let mut draft = client.images().generate("a lighthouse").into_draft();
    draft.set("size", "1024x768").unwrap().set("steps", 20).unwrap().set("num_inference_steps", 30).unwrap();
    draft.set("output_format", "webp").unwrap().set("n", 2).unwrap().set("n", json!(null)).unwrap();
    let mut expected = Options::default().with_size("1024x768".parse().unwrap());
    expected.output_format = Some(lumenfall::OutputFormat::Webp);
    expected.sampling.steps = Some(30);
    assert_eq!(draft.spec().options, expected);

    for (name, value) in [
        ("stpes", json!(20)),
        ("n", json!(11)),
        ("n", json!("two")),
        ("size", json!("2048x2048")),
        ("steps", json!(-1)),
        ("seed", json!(0.5)),
        ("prompt", json!(null)),
    ] {
        let error = draft.set(name, value).unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some(name)), "{error}");
    }
    assert_eq!(draft.spec().options, expected, "an error changes nothing");
}

#[test]
fn all_violated_rules_are_reported_for_a_form() {
    let mut spec = GenerateSpec::new(SCHEMA.id, " ");
    spec.options.n = Some(11);
    spec.options.size = "2048x2048".parse().ok();
    spec.options.aspect_ratio = "16:9".parse().ok();
    spec.options.output_compression = Some(80);
    spec.options.sampling.steps = Some(0);
    let errors = SCHEMA.check_all(&spec);
    let names: Vec<_> = errors.iter().filter_map(|error| error.parameter()).collect();
    assert_eq!(names, ["steps", "prompt", "size", "aspect_ratio", "output_compression", "n"]);
    assert!(SCHEMA.check_all(&GenerateSpec::new(SCHEMA.id, "a lighthouse")).is_empty());
}

#[test]
fn the_rules_of_every_model_hold_for_unknown_models() {
    let mut none = GenerateSpec::new("other", "a lighthouse");
    none.options.n = Some(0);
    assert_eq!(none.validate().unwrap_err().parameter(), Some("n"));
    assert_eq!(GenerateSpec::new("other", " \n").validate().unwrap_err().parameter(), Some("prompt"));
    assert_eq!(EditSpec::new("other", []).validate().unwrap_err().parameter(), Some("image"));
    EditSpec::new("other", Input::path("a.png")).validate().unwrap();

    let mut twice = GenerateSpec::new("other", "a lighthouse");
    twice.options.extra.insert("steps".into(), json!(20));
    twice.validate().unwrap();
    twice.options.sampling.steps = Some(30);
    assert_eq!(twice.validate().unwrap_err().parameter(), Some("steps"));
}

#[test]
fn a_form_becomes_a_request_and_the_facts_of_its_fields_are_known() {
    let map = |json: serde_json::Value| json.as_object().cloned().unwrap();
    let spec = SCHEMA.generate_spec(map(json!({ "prompt": "a lighthouse", "n": 2, "guidance": 4.5 }))).unwrap();
    assert_eq!((spec.options.n, spec.options.sampling.guidance), (Some(2), Some(4.5)));
    let edit = SCHEMA.edit_spec(Input::path("a.png"), map(json!({ "strength": 0.5 }))).unwrap();
    assert_eq!(edit.options.sampling.strength, Some(0.5));
    for (name, json) in [
        ("sice", json!({ "prompt": "a lighthouse", "sice": "1024x1024" })),
        ("prompt", json!({ "n": 2 })),
        ("mask", json!({ "prompt": "a lighthouse", "mask": "a.png" })),
        ("strength", json!({ "prompt": "a lighthouse", "strength": 0.5 })),
    ] {
        assert_eq!(SCHEMA.generate_spec(map(json)).unwrap_err().parameter(), Some(name));
    }

    let parameter = |name| SCHEMA.parameter(name).unwrap();
    assert_eq!(parameter("size").excludes, ["aspect_ratio", "resolution"]);
    assert_eq!(parameter("resolution").excludes, ["size"]);
    assert_eq!((parameter("n").default, parameter("n").description), (Some("1"), "Number of images to generate"));
    assert_eq!(parameter("mask").media_types, ["image/png"]);
    // Every control can be set by the name that the table lists.
    for control in &CONTROLS {
        let value = if matches!(control.kind, Kind::Text { .. }) { json!("rain") } else { json!(1) };
        let mut options = Options::default();
        options.set(control.name, value).unwrap();
        assert!(options.extra.is_empty() && options != Options::default(), "{}", control.name);
    }
}

#[tokio::test]
async fn a_stored_request_is_sent_by_the_client() {
    let client = Client::new(MockBackend::new());
    let json = r#"{"generate":{"model":"stable-diffusion-3.5-medium","prompt":"a lighthouse","options":{"n":2}}}"#;
    let request: Request = serde_json::from_str(json).unwrap();
    assert_eq!(client.request(request.clone()).send().await.unwrap().len(), 2);
    let mut invalid = request;
    invalid.set("n", 11).unwrap();
    assert_eq!(client.request(invalid).send().await.unwrap_err().parameter(), Some("n"));
}

#[tokio::test(start_paused = true)]
async fn a_handle_cancels_running_and_later_requests() {
    let backend = MockBackend::new().delay(Duration::from_secs(5));
    let client = Client::new(backend.clone());
    let cancellation = Cancellation::new();
    let request = || client.images().generate("a lighthouse").cancel_with(&cancellation);
    let (result, ()) = tokio::join!(request().send(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cancellation.cancel();
    });
    let running = result.unwrap_err();
    assert_eq!((running.kind(), running.maybe_billed()), (ErrorKind::Cancelled, true));
    let later = request().send().await.unwrap_err();
    assert_eq!((later.kind(), later.maybe_billed()), (ErrorKind::Cancelled, false));
    assert_eq!(backend.requests().len(), 1);
    client.images().generate("a lighthouse").cancel_with(&Cancellation::new()).send().await.unwrap();
}

#[test]
fn a_handle_cancels_blocking_code_from_another_thread() {
    let client = Client::new(MockBackend::new().delay(Duration::from_secs(600)));
    let cancellation = Cancellation::new();
    let canceller = thread::spawn({
        let cancellation = cancellation.clone();
        move || {
            cancellation.cancel();
        }
    });
    let error = client.images().generate("a lighthouse").cancel_with(&cancellation).send().wait().unwrap_err();
    canceller.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
