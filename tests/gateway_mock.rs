//! The mock of the gateway, and the remote backend's behaviour against it in bulk.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use lumenfall::RetryPolicy;
use lumenfall::backend::{EditSpec, GenerateSpec};
use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
use lumenfall::testing::{Fault, MockGateway, PIXEL, conformance};
use lumenfall::{ErrorKind, Fal, Input, OutputFormat, Webp, count};

const MODEL: &str = "stable-diffusion-3.5-medium";

#[tokio::test]
async fn the_remote_backend_keeps_the_promises_of_a_backend() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
    assert_eq!(conformance(&remote, GenerateSpec::new(MODEL, "a lighthouse"), edit).await, Vec::<String>::new());
}

#[tokio::test]
async fn typed_requests_arrive_and_their_images_come_back() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.client().unwrap();
    let images =
        client.images().generate("a lighthouse").n(count!(3)).output_format(Webp).pin(Fal).send().await.unwrap();
    assert_eq!(images.len(), 3);
    assert_eq!(images.metadata().model.as_deref(), Some("fal/stable-diffusion-3.5-medium"));
    assert_eq!(OutputFormat::of(&images[2].download().await.unwrap()), Some(OutputFormat::Webp));

    client.images().edit(Input::bytes(PIXEL)).mask(Input::bytes(PIXEL)).inline().send().await.unwrap();
    let received = gateway.received();
    assert_eq!(received[0].fields["model"], "fal/stable-diffusion-3.5-medium");
    assert_eq!(
        (received[1].endpoint.as_str(), &received[1].files[..]),
        ("edits", &["image".into(), "mask".into()][..])
    );
}

#[tokio::test]
async fn an_estimate_a_balance_and_the_models_are_answered() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let estimate = gateway.client().unwrap().images().generate("a lighthouse").n(count!(2)).estimate().await.unwrap();
    assert!((estimate.total.amount - 0.04).abs() < 1e-9);
    assert_eq!(remote.account().balance().await.unwrap().available.unwrap().currency, "USD");
    assert_eq!(remote.models().list().await.unwrap()[0].id, MODEL);
    assert_eq!(remote.models().get(MODEL).await.unwrap().id, MODEL);
}

#[tokio::test]
async fn a_wrong_key_an_unknown_model_and_a_broken_rule_are_refused() {
    let gateway = MockGateway::start().await.unwrap();
    let stranger = gateway.builder().api_key("wrong").build().unwrap();
    let error = stranger.images().generate("a lighthouse").send().await.unwrap_err();
    assert_eq!(error.code(), Some("AUTHENTICATION_FAILED"));

    let remote = gateway.builder().backend().unwrap();
    let send = |spec| lumenfall::backend::Request::Generate(spec).send(&remote, Default::default());
    assert_eq!(send(GenerateSpec::new("none", "x")).await.unwrap_err().code(), Some("MODEL_NOT_FOUND"));
    let mut spec = GenerateSpec::new(MODEL, "x");
    spec.options.n = Some(11);
    assert_eq!(send(spec).await.unwrap_err().code(), Some("INVALID_REQUEST"));
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.builder().retry(RetryPolicy::none()).build().unwrap();
    for (fault, kind) in [
        (Fault::Status(503), ErrorKind::Upstream),
        (Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()), ErrorKind::ContentPolicy),
        (Fault::RateLimited(Duration::from_secs(1)), ErrorKind::RateLimited),
        (Fault::Reset, ErrorKind::Connection),
        (Fault::ResetInBody, ErrorKind::Connection),
        (Fault::Garbage, ErrorKind::InvalidResponse),
        (Fault::NoImages, ErrorKind::InvalidResponse),
    ] {
        gateway.fault_next(fault.clone());
        let error = client.images().generate("a lighthouse").send().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}");
    }
    gateway.fault_next(Fault::Delay(Duration::from_millis(100)));
    client.images().generate("a lighthouse").send().await.unwrap();
}

#[tokio::test]
async fn the_schema_that_is_served_is_compared_with_the_compiled_one() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let served = remote.models().schema::<StableDiffusion35Medium>().await.unwrap();
    assert_eq!(served.changes, []);
    assert_eq!(served.json["schema"]["id"], MODEL);
}
