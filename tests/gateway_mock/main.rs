//! The mock gateway, and the remote backend in use with it.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod http;

use std::time::Duration;

use futures_util::StreamExt;
use lumenfall::backend::{Backend, EditSpec, GenerateSpec, Request};
use lumenfall::providers::Fal;
use lumenfall::remote::{Page, Remote, Replay, RequestFilter, RequestStatus};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::testing::{Fault, MockGateway, PIXEL, conformance};
use lumenfall::{Client, Error, ErrorKind, Hosted, Images, Input, OutputFormat, RetryPolicy, Webp, count, size};
use serde_json::Value;

const MODEL: &str = "stable-diffusion-3.5-medium";

async fn start() -> (MockGateway, Remote, Client) {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().build().unwrap();
    (gateway, remote.clone(), Client::new(remote))
}

async fn generate(client: &Client) -> Result<Images<Hosted>, Error> {
    client.images().generate("a lighthouse").send().await
}

#[tokio::test]
async fn the_remote_backend_conforms() {
    let (_gateway, remote, _) = start().await;
    let edit = EditSpec::new(MODEL, Input::bytes(PIXEL));
    assert_eq!(conformance(&remote, GenerateSpec::new(MODEL, "a lighthouse"), edit).await, Vec::<String>::new());
}

#[tokio::test]
async fn typed_requests_arrive_and_their_images_are_returned() {
    let (gateway, remote, client) = start().await;
    let request = client.images().generate("a lighthouse").n(count!(3)).output_format(Webp).pin(Fal);
    let images = request.send().await.unwrap();
    assert_eq!(images.len(), 3);
    assert_eq!(images.metadata().model.as_deref(), Some("fal/stable-diffusion-3.5-medium"));
    assert_eq!(OutputFormat::of(&images[2].download().await.unwrap()), Some(OutputFormat::Webp));

    client.images().edit(Input::bytes(PIXEL)).mask(Input::bytes(PIXEL)).inline().send().await.unwrap();
    let received = gateway.received();
    assert_eq!(received[0].fields["model"], "fal/stable-diffusion-3.5-medium");
    assert_eq!(received[1].endpoint, "edits");
    assert_eq!(received[1].files, ["image", "mask"]);
    let model = remote.models().schema_json(MODEL).await.unwrap();
    assert_eq!(model["schema"], serde_json::from_str::<Value>(SCHEMA.json).unwrap());
}

#[tokio::test]
async fn a_wrong_key_an_unknown_model_an_invalid_request_and_the_recorder_are_rejected() {
    let (gateway, remote, _) = start().await;
    let stranger = gateway.builder().api_key("wrong").build().map(Client::new).unwrap();
    assert_eq!(generate(&stranger).await.unwrap_err().code(), Some("AUTHENTICATION_FAILED"));
    let recorder = gateway.builder().replay(Replay::mock()).build().map(Client::new).unwrap();
    assert_eq!(generate(&recorder).await.unwrap_err().code(), Some("INVALID_REQUEST"));

    let send = |spec| remote.send(Request::Generate(spec), Default::default());
    assert_eq!(send(GenerateSpec::new("none", "x")).await.unwrap_err().code(), Some("MODEL_NOT_FOUND"));
    let mut spec = GenerateSpec::new(MODEL, "x");
    spec.options.n = Some(11);
    assert_eq!(send(spec).await.unwrap_err().code(), Some("INVALID_REQUEST"));
}

#[tokio::test]
async fn a_dry_run_returns_the_price_and_costs_nothing() {
    let (_gateway, remote, client) = start().await;
    let estimate = client.images().generate("a lighthouse").n(count!(2)).estimate().await.unwrap();
    assert_eq!((estimate.total.amount(), estimate.provider.as_deref()), (0.07, Some("replicate")));
    let request = client.images().generate("a lighthouse").size(size!("1000x1000")).pin(Fal);
    assert_eq!(request.n(count!(3)).estimate().await.unwrap().total.amount(), 0.06);
    assert_eq!(remote.account().balance().await.unwrap().available.unwrap().amount(), 100.0);
}

#[tokio::test]
async fn each_fault_has_its_documented_effect() {
    let gateway = MockGateway::start().await.unwrap();
    let builder = gateway.builder().retry(RetryPolicy::none()).max_response_bytes(100_000);
    let client = builder.build().map(Client::new).unwrap();
    for (fault, kind, billed) in [
        (Fault::Status(503), ErrorKind::Upstream, false),
        (Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()), ErrorKind::ContentPolicy, false),
        (Fault::RateLimited(Duration::from_secs(1)), ErrorKind::RateLimited, false),
        (Fault::Reset, ErrorKind::Connection, true),
        (Fault::Garbage, ErrorKind::InvalidResponse, true),
        (Fault::Oversize(100_001), ErrorKind::InvalidResponse, true),
        (Fault::NoImages, ErrorKind::InvalidResponse, true),
    ] {
        gateway.fault_next(fault.clone());
        let error = generate(&client).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (kind, billed), "{fault:?}");
    }
    let hour = Duration::from_secs(3600);
    for fault in [Fault::Delay(hour), Fault::Drip(hour), Fault::Hang] {
        gateway.fault_next(fault.clone());
        let request = client.images().generate("a lighthouse").timeout(Duration::from_millis(300));
        assert_eq!(request.send().await.unwrap_err().kind(), ErrorKind::Timeout, "{fault:?}");
    }
}

#[tokio::test]
async fn the_other_kind_of_delivery_is_returned() {
    let (gateway, _, client) = start().await;
    gateway.fault_next(Fault::OtherDelivery);
    let images = generate(&client).await.unwrap();
    assert_eq!((images[0].url(), images[0].download().await.unwrap().as_ref()), (None, PIXEL));

    gateway.fault_next(Fault::OtherDelivery);
    gateway.fault_downloads_when(|_| Some(Fault::Status(403)));
    let error = client.images().generate("a lighthouse").inline().send().await.unwrap_err();
    assert_eq!(error.unfetched_urls().len(), 1);
}

#[tokio::test]
async fn a_rule_applies_after_the_queued_faults_until_the_gateway_stops() {
    let (gateway, _, client) = start().await;
    gateway.fault_when(|request| (request.endpoint == "edits").then_some(Fault::Status(500)));
    gateway.fault_next(Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()));
    let edit = || client.images().edit(Input::bytes(PIXEL)).send();
    assert_eq!(edit().await.unwrap_err().kind(), ErrorKind::ContentPolicy);
    assert_eq!(edit().await.unwrap_err().status(), Some(500));
    generate(&client).await.unwrap();

    gateway.fault_when(|_| None);
    edit().await.unwrap();
    drop(gateway);
    assert_eq!(edit().await.unwrap_err().kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn a_fault_applies_to_one_download_or_to_those_that_a_rule_chooses() {
    let (gateway, _, client) = start().await;
    let (images, others) = (generate(&client).await.unwrap(), generate(&client).await.unwrap());
    gateway.fault_downloads_when(|source| (source.id == "req_mock_1").then_some(Fault::Status(403)));
    for images in [&images, &others, &images] {
        gateway.fault_next_download(Fault::Drip(Duration::ZERO));
        assert_eq!(images[0].download().await.unwrap(), PIXEL);
    }
    let error = images[0].download().await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::NotFound, false));
    assert_eq!(others[0].download().await.unwrap(), PIXEL);
}

#[tokio::test]
async fn a_url_requires_its_signature_and_rejects_the_key() {
    let (gateway, remote, client) = start().await;
    let images = generate(&client).await.unwrap();
    let url = images[0].url().unwrap();
    let unsigned = url.split_once('?').unwrap().0;
    for wrong in [unsigned.to_owned(), format!("{unsigned}?signature=another")] {
        let Err(error) = remote.fetch(&wrong).await else { panic!("{wrong} was fetched") };
        assert_eq!((error.kind(), error.status()), (ErrorKind::NotFound, Some(403)));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let response = reqwest::Client::new().get(url).bearer_auth(gateway.key()).send().await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn the_account_lists_requests_with_their_cost_and_purges_them() {
    let (gateway, remote, _) = start().await;
    let client = gateway.builder().retry(RetryPolicy::none()).build().map(Client::new).unwrap();
    client.images().generate("a lighthouse").n(count!(2)).user("ann").send().await.unwrap();
    gateway.fault_next(Fault::Code(502, "UPSTREAM_ERROR".into()));
    client.images().edit(Input::bytes(PIXEL)).send().await.unwrap_err();
    gateway.fault_next(Fault::RateLimited(Duration::ZERO));
    generate(&client).await.unwrap_err();
    // This request is executed and billed; only its response is lost.
    gateway.fault_next(Fault::Reset);
    generate(&client).await.unwrap_err();

    let filter = RequestFilter { page_size: Some(3), ..RequestFilter::default() };
    let all: Vec<_> = remote.account().requests(filter).map(Result::unwrap).collect().await;
    let ends: Vec<_> =
        all.iter().map(|record| (record.id.as_str(), record.status, record.cost.as_ref().unwrap().micros)).collect();
    let expected_ends = [
        ("req_mock_4", RequestStatus::Completed, 35_000),
        ("req_mock_3", RequestStatus::Rejected, 0),
        ("req_mock_2", RequestStatus::UpstreamFailure, 0),
        ("req_mock_1", RequestStatus::Completed, 70_000),
    ];
    assert_eq!(ends, expected_ends);
    assert_eq!(all[2].error_code.as_deref(), Some("UPSTREAM_ERROR"));
    assert_eq!(all[2].endpoint.as_deref(), Some("images/edits"));
    assert_eq!((all[3].user.as_deref(), all[3].model.as_deref()), (Some("ann"), Some(MODEL)));
    assert_eq!(remote.account().request("req_mock_1").await.unwrap(), all[3]);
    let balance = remote.account().balance().await.unwrap().available.unwrap();
    assert_eq!(balance.micros, 99_895_000);
    let unsupported = RequestFilter { status: Some(RequestStatus::Rejected), ..RequestFilter::default() };
    for (filter, page) in [(unsupported, Page::First), (RequestFilter::default(), Page::After("req_none"))] {
        let error = remote.account().page(&filter, page, false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }

    remote.account().purge("req_mock_2").await.unwrap();
    let purged: Vec<_> = gateway.received().iter().map(|request| request.purged).collect();
    assert_eq!(purged, [false, true, false, false]);
    assert_eq!(remote.account().purge("req_none").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(remote.account().request("req_none").await.unwrap_err().kind(), ErrorKind::NotFound);
}
