//! The mock of the gateway, and the remote backend's behaviour against it in bulk.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use lumenfall::backend::{Backend, EditSpec, GenerateSpec};
use lumenfall::remote::{Page, Remote, Replay, RequestFilter, RequestStatus};
use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
use lumenfall::testing::{Fault, MockGateway, PIXEL, conformance};
use lumenfall::{Client, ErrorKind, Fal, Input, OutputFormat, RetryPolicy, Webp, count, size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
    assert_eq!((estimate.total.amount, estimate.provider.as_deref()), (0.07, Some("replicate")));
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
async fn a_dry_run_tells_what_the_price_is_made_of_and_costs_nothing() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let estimate = gateway.client().unwrap().images().generate("a lighthouse").size(size!("1000x1000")).pin(Fal);
    assert_eq!(estimate.n(count!(3)).estimate().await.unwrap().total.amount, 0.06);
    assert_eq!(balance(&remote).await, 100.0);

    let body = r#"{"model":"fal/stable-diffusion-3.5-medium","prompt":"x","size":"1000x500"}"#;
    let answer = call(&gateway, "POST", "/openai/v1/images/generations?dryRun=true", body).await;
    assert_eq!(answer["total_cost_micros"], 10_000);
    let component = &answer["components"][0];
    assert_eq!((&component["metric"], &component["billable_quantity"]), (&"megapixel".into(), &0.5.into()));
    assert_eq!((&component["unit_price"], &component["total_cost"]), (&0.02.into(), &10_000.into()));
}

#[tokio::test]
async fn each_fault_is_what_it_says() {
    let gateway = MockGateway::start().await.unwrap();
    let builder = gateway.builder().retry(RetryPolicy::none()).max_response_bytes(100_000);
    let client = builder.idle_timeout(Duration::from_secs(1)).build().unwrap();
    for (fault, kind, billed) in [
        (Fault::Status(503), ErrorKind::Upstream, false),
        (Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()), ErrorKind::ContentPolicy, false),
        (Fault::RateLimited(Duration::from_secs(1)), ErrorKind::RateLimited, false),
        (Fault::RateLimitedUntil(SystemTime::now()), ErrorKind::RateLimited, false),
        (Fault::Reset, ErrorKind::Connection, true),
        (Fault::Drip(Duration::from_secs(60)), ErrorKind::Timeout, true),
        (Fault::Garbage, ErrorKind::InvalidResponse, true),
        (Fault::Oversize(100_001), ErrorKind::InvalidResponse, true),
        (Fault::NoImages, ErrorKind::InvalidResponse, true),
    ] {
        gateway.fault_next(fault.clone());
        let error = timed(client.images().generate("a lighthouse").send()).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (kind, billed), "{fault:?}");
    }
    // The right answer comes in the end.
    for fault in [
        Fault::Delay(Duration::from_millis(100)),
        Fault::Drip(Duration::from_millis(10)),
        Fault::Oversize(100_000),
        Fault::Oversize(0),
    ] {
        let wait = matches!(fault, Fault::Delay(_) | Fault::Drip(_));
        gateway.fault_next(fault.clone());
        let started = Instant::now();
        assert_eq!(client.images().generate("a lighthouse").send().await.unwrap().len(), 1, "{fault:?}");
        assert!(!wait || started.elapsed() >= Duration::from_millis(100), "{fault:?}");
    }
    // The image had come whole by then.
    for fault in [Fault::ResetInBody, Fault::Truncated] {
        gateway.fault_next(fault);
        let images = client.images().generate("a lighthouse").send().await.unwrap();
        assert!(images.metadata().warnings[0].starts_with("the answer broke after 1 images"), "{images:?}");
    }
}

/// A client whose own time-out never ends it fails here instead of going on for ever.
async fn timed<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), call).await.unwrap()
}

#[tokio::test]
async fn a_hang_ends_when_the_client_goes_away() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let client = Client::new(remote.clone());
    gateway.fault_next(Fault::Hang);
    let call = tokio::spawn(client.images().generate("a lighthouse").send());
    arrival(&gateway).await;
    assert_eq!(remote.account().request("req_mock_1").await.unwrap().status, RequestStatus::Processing);
    call.abort();
    // The server hears of it a little later.
    for _ in 0..100 {
        if remote.account().request("req_mock_1").await.unwrap().status != RequestStatus::Processing {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(remote.account().request("req_mock_1").await.unwrap().status, RequestStatus::Cancelled);
}

#[tokio::test]
async fn a_hang_ends_with_the_gateway() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.client().unwrap();
    gateway.fault_next(Fault::Hang);
    let call = tokio::spawn(client.images().generate("a lighthouse").send());
    arrival(&gateway).await;
    drop(gateway);
    assert_eq!(timed(call).await.unwrap().unwrap_err().kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn a_date_to_wait_for_is_told_and_kept() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.builder().retry(RetryPolicy::none()).build().unwrap();
    gateway.fault_next(Fault::RateLimitedUntil(SystemTime::now() + Duration::from_secs(1000)));
    let error = client.images().generate("a lighthouse").send().await.unwrap_err();
    assert!((900..=1000).contains(&error.retry_after().unwrap().as_secs()), "{error:?}");

    let date = SystemTime::now() + Duration::from_secs(2);
    gateway.fault_next(Fault::RateLimitedUntil(date));
    gateway.client().unwrap().images().generate("a lighthouse").send().await.unwrap();
    // The date has no parts of a second.
    assert!(SystemTime::now() > date - Duration::from_secs(1));
}

#[tokio::test]
async fn what_was_not_asked_for_comes_and_is_read_all_the_same() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.client().unwrap();
    gateway.fault_next(Fault::OtherDelivery);
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    assert_eq!(images[0].url(), None);
    assert_eq!(images[0].download().await.unwrap(), PIXEL);

    gateway.fault_next(Fault::OtherDelivery);
    let spec = client.images().generate("a lighthouse").inline().into_spec();
    let body = serde_json::json!({ "model": spec.model, "prompt": spec.prompt, "response_format": "b64_json" });
    let answer = call(&gateway, "POST", "/openai/v1/images/generations", &body.to_string()).await;
    assert!(answer["data"][0]["url"].is_string() && answer["data"][0]["b64_json"].is_null(), "{answer}");

    gateway.fault_next(Fault::OtherDelivery);
    let images = client.images().generate("a lighthouse").inline().send().await.unwrap();
    assert_eq!(images[0].bytes(), PIXEL);
}

#[tokio::test]
async fn a_rule_decides_by_the_request_after_the_faults_in_line() {
    let gateway = MockGateway::start().await.unwrap();
    gateway.fault_when(|request| (request.endpoint == "edits").then_some(Fault::Status(500)));
    gateway.fault_next(Fault::Code(400, "CONTENT_POLICY_VIOLATION".into()));
    let client = gateway.client().unwrap();
    let edit = || client.images().edit(Input::bytes(PIXEL)).send();
    assert_eq!(edit().await.unwrap_err().kind(), ErrorKind::ContentPolicy);
    assert_eq!(edit().await.unwrap_err().status(), Some(500));
    client.images().generate("a lighthouse").send().await.unwrap();

    gateway.fault_when(|_| None);
    edit().await.unwrap();
}

#[tokio::test]
async fn a_download_that_breaks_is_begun_again() {
    let gateway = MockGateway::start().await.unwrap();
    let client = gateway.builder().idle_timeout(Duration::from_millis(200)).build().unwrap();
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    for fault in [Fault::Status(503), Fault::Reset, Fault::ResetInBody, Fault::Hang, Fault::Drip(Duration::ZERO)] {
        gateway.fault_next_download(fault.clone());
        assert_eq!(images[0].download().await.unwrap(), PIXEL, "{fault:?}");
    }
    let id = gateway.received()[0].id.clone();
    gateway.fault_downloads_when(move |maker| (maker.id == id).then_some(Fault::Status(403)));
    let error = images[0].download().await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::NotFound, false));
    let others = client.images().generate("a lighthouse").send().await.unwrap();
    assert_eq!(others[0].download().await.unwrap(), PIXEL);
}

#[tokio::test]
async fn an_address_is_good_with_its_signature_and_without_the_key_only() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let images = gateway.client().unwrap().images().generate("a lighthouse").send().await.unwrap();
    let address = images[0].url().unwrap();
    assert_eq!(images[0].download().await.unwrap(), PIXEL);

    let (unsigned, query) = address.split_once('?').unwrap();
    for wrong in [unsigned.to_owned(), format!("{unsigned}?signature=another")] {
        let Err(error) = remote.fetch(&wrong).await else { panic!("{wrong} was fetched") };
        assert_eq!((error.kind(), error.status()), (ErrorKind::NotFound, Some(403)));
    }
    let path = unsigned.split_at(unsigned.find("/files").unwrap()).1;
    let answer = call(&gateway, "GET", &format!("{path}?{query}"), "").await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "`call` sends the key");
}

#[tokio::test]
async fn the_account_tells_what_was_asked_and_what_it_cost() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let builder = gateway.builder().header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let client = builder.retry(RetryPolicy::none()).build().unwrap();
    let before = balance(&remote).await;
    client.images().generate("a lighthouse").n(count!(2)).user("ann").send().await.unwrap();
    gateway.fault_next(Fault::Code(502, "UPSTREAM_ERROR".into()));
    client.images().edit(Input::bytes(PIXEL)).send().await.unwrap_err();
    gateway.fault_next(Fault::RateLimited(Duration::ZERO));
    client.images().generate("a lighthouse").send().await.unwrap_err();
    // Made and billed, and lost on the way.
    gateway.fault_next(Fault::Reset);
    client.images().generate("a lighthouse").send().await.unwrap_err();

    let all: Vec<_> = remote.account().requests(RequestFilter::default()).map(Result::unwrap).collect().await;
    let ends: Vec<_> = all.iter().map(|record| (record.id.as_str(), record.status, record.cost.unwrap())).collect();
    assert_eq!(
        ends,
        [
            ("req_mock_4", RequestStatus::Completed, 0.035),
            ("req_mock_3", RequestStatus::Rejected, 0.0),
            ("req_mock_2", RequestStatus::UpstreamFailure, 0.0),
            ("req_mock_1", RequestStatus::Completed, 0.07),
        ]
    );
    assert_eq!(
        (all[2].error_code.as_deref(), all[2].endpoint.as_deref()),
        (Some("UPSTREAM_ERROR"), Some("images/edits"))
    );
    assert_eq!((all[3].user.as_deref(), all[3].model.as_deref()), (Some("ann"), Some(MODEL)));
    assert!(all.iter().all(|record| record.trace_id.as_deref() == Some(trace) && record.duration_ms.is_some()));
    assert!(all.iter().all(|record| record.request_size_bytes.unwrap() > 50));
    assert!((before - balance(&remote).await - 0.105).abs() < 1e-9);
    let page = remote.account().page(&RequestFilter::default(), Page::First, true).await.unwrap();
    assert_eq!(page.summary.unwrap(), serde_json::json!({ "requests": 4, "total_cost": 0.105, "currency": "usd" }));
    assert_eq!(remote.account().page(&RequestFilter::default(), Page::First, false).await.unwrap().summary, None);
    assert_eq!(remote.account().request("req_mock_1").await.unwrap(), all[3]);
}

#[tokio::test]
async fn the_list_of_requests_has_pages_and_filters() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let client = gateway.client().unwrap();
    for i in 0..7 {
        // Two are refused.
        if i % 3 == 1 {
            gateway.fault_next(Fault::Status(400));
        }
        let _ = client.images().generate("a lighthouse").send().await;
    }
    let ids = async |filter| -> Vec<String> {
        remote.account().requests(filter).map(|record| record.unwrap().id).collect().await
    };
    let named = |numbers: &[u32]| -> Vec<_> { numbers.iter().map(|number| format!("req_mock_{number}")).collect() };
    let paged = RequestFilter { page_size: Some(3), ..RequestFilter::default() };
    assert_eq!(ids(paged.clone()).await, named(&[7, 6, 5, 4, 3, 2, 1]));
    let rejected = RequestFilter { status: Some(RequestStatus::Rejected), page_size: Some(1), ..paged.clone() };
    assert_eq!(ids(rejected).await, named(&[5, 2]));

    let page = async |place| remote.account().page(&paged, place, false).await;
    let oldest = page(Page::After("req_mock_3")).await.unwrap();
    assert_eq!((oldest.requests.len(), oldest.next()), (2, None));
    let middle = page(Page::After("req_mock_5")).await.unwrap();
    assert_eq!((middle.requests.len(), middle.next()), (3, Some(Page::After("req_mock_2"))));
    let newer = page(middle.previous().unwrap()).await.unwrap();
    let ids_of: Vec<_> = newer.requests.iter().map(|record| &record.id).collect();
    assert_eq!(ids_of, ["req_mock_7", "req_mock_6", "req_mock_5"]);
    assert_eq!((newer.previous(), newer.next()), (None, Some(Page::After("req_mock_5"))));
    for place in [Page::After("req_none"), Page::Before("req_none")] {
        assert_eq!(page(place).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }

    let created = remote.account().request("req_mock_1").await.unwrap().created_at.unwrap();
    let after = |date: &str| RequestFilter { created_after: Some(date.into()), ..RequestFilter::default() };
    let before = |date: &str| RequestFilter { created_before: Some(date.into()), ..RequestFilter::default() };
    assert_eq!(ids(after(&created)).await.len(), 7);
    assert_eq!(ids(after("2999-01-01T00:00:00Z")).await.len(), 0);
    assert_eq!(ids(before("2999-01-01T00:00:00Z")).await.len(), 7);
    assert_eq!(ids(before("1999-01-01T00:00:00Z")).await.len(), 0);
    let of_key = |key: &str| RequestFilter { key_id: Some(key.into()), ..RequestFilter::default() };
    assert_eq!((ids(of_key("mock")).await.len(), ids(of_key("another")).await.len()), (7, 0));
}

#[tokio::test]
async fn a_purge_is_seen_and_needs_a_request() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let client = gateway.client().unwrap();
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    client.images().generate("a lighthouse").send().await.unwrap();
    remote.account().purge(images.metadata().request_id.as_deref().unwrap()).await.unwrap();
    assert_eq!(gateway.received().iter().map(|request| request.purged).collect::<Vec<_>>(), [true, false]);
    for error in
        [remote.account().purge("req_none").await.unwrap_err(), remote.account().request("req_none").await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn the_recorders_modes_cost_what_they_say() {
    let gateway = MockGateway::start().await.unwrap();
    for (mode, cost) in [
        (Replay::mock(), Some(0.0)),
        (Replay::replay_or_mock(), Some(0.0)),
        (Replay::replay_or_error(), None),
        (Replay::off(), Some(0.035)),
        (Replay::record(), Some(0.035)),
        (Replay::replay_or_live(), Some(0.035)),
        (Replay::replay_or_record(), Some(0.035)),
    ] {
        let client = gateway.builder().replay(mode.clone()).build().unwrap();
        match (client.images().generate("a lighthouse").send().await, cost) {
            (Ok(images), Some(cost)) => assert_eq!(images.metadata().cost.as_ref().unwrap().amount, cost, "{mode:?}"),
            (Err(error), None) => assert_eq!(error.code(), Some("RECORDING_NOT_FOUND")),
            (answer, _) => panic!("{mode:?}: {answer:?}"),
        }
    }
    let remote = gateway.builder().backend().unwrap();
    assert!((balance(&remote).await - (100.0 - 4.0 * 0.035)).abs() < 1e-9);
}

/// Until a request has come.
async fn arrival(gateway: &MockGateway) {
    let come = async {
        while gateway.received().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), come).await.unwrap();
}

async fn balance(remote: &Remote) -> f64 {
    remote.account().balance().await.unwrap().available.unwrap().amount
}

/// The JSON answer to a request that no client would write so.
async fn call(gateway: &MockGateway, method: &str, path: &str, body: &str) -> serde_json::Value {
    let host = gateway.base_url().split('/').nth(2).unwrap().to_owned();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let (key, length) = (gateway.key(), body.len());
    let request = format!(
        "{method} {path} HTTP/1.1\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn the_schema_that_is_served_is_compared_with_the_compiled_one() {
    let gateway = MockGateway::start().await.unwrap();
    let remote = gateway.builder().backend().unwrap();
    let served = remote.models().schema::<StableDiffusion35Medium>().await.unwrap();
    assert_eq!(served.changes, []);
    assert_eq!(served.json["schema"]["id"], MODEL);
}
