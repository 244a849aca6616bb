//! The header `traceparent`: sent to the API from within a span, and to nobody else.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use lumenfall::{Client, Input};
use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

async fn server() -> (MockServer, Client) {
    let server = MockServer::start().await;
    let address = json!({ "data": [{ "url": format!("{}/image.png", server.uri()) }] });
    let images = Mock::given(method("POST")).and(path("/v1/images/generations"));
    images.respond_with(ResponseTemplate::new(200).set_body_json(address)).mount(&server).await;
    let file = Mock::given(method("GET")).and(path("/image.png"));
    file.respond_with(ResponseTemplate::new(200).set_body_bytes(b"\x89PNG\r\n\x1a\n".as_slice())).mount(&server).await;
    let client = Client::builder().api_key("key").base_url(format!("{}/v1", server.uri())).build().unwrap();
    (server, client)
}

/// Makes an image and fetches it, and returns the header of the first request and of the second.
async fn headers(server: &MockServer, client: &Client) -> [Option<String>; 2] {
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    images[0].download().await.unwrap();
    let header = |request: &wiremock::Request| Some(request.headers.get("traceparent")?.to_str().unwrap().to_owned());
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 2);
    [header(&requests[0]), header(&requests[1])]
}

/// Runs `work` with spans that are sampled and lead nowhere.
fn run(work: impl AsyncFnOnce()) {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _spans = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

#[test]
fn a_request_within_a_span_names_it_and_its_download_does_not() {
    run(async || {
        let (server, client) = server().await;
        let span = tracing::info_span!("asset");
        let trace = span.context().span().span_context().trace_id().to_string();
        let [sent, downloaded] = headers(&server, &client).instrument(span).await;
        let sent = sent.expect("the header is sent");
        assert!(sent.starts_with(&format!("00-{trace}-")) && sent.ends_with("-01"), "{sent}");
        assert_eq!(downloaded, None, "an image's host learns nothing of the trace");
    });
}

#[test]
fn each_try_of_each_kind_of_request_names_the_span() {
    run(async || {
        let server = MockServer::start().await;
        let refusal = ResponseTemplate::new(429).insert_header("retry-after-ms", "1");
        Mock::given(method("POST")).respond_with(refusal).up_to_n_times(1).mount(&server).await;
        let answer = json!({ "data": [{ "url": "https://x.example/1" }], "total_cost_micros": 1, "status": "COMPLETED",
                             "request_id": "j1", "images": [{ "url": "https://x.example/1" }] });
        Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(answer)).mount(&server).await;
        let builder = || Client::builder().api_key("key").base_url(server.uri()).native_url(server.uri());
        let client = builder().build().unwrap();
        let fal = Client::new(builder().fal().unwrap());
        let span = tracing::info_span!("asset");
        let trace = span.context().span().span_context().trace_id().to_string();
        async {
            client.images().edit(Input::bytes(b"\x89PNG\r\n\x1a\n".as_slice())).send().await.unwrap();
            client.images().generate("a lighthouse").estimate().await.unwrap();
            fal.images().generate("a lighthouse").send().await.unwrap();
        }
        .instrument(span)
        .await;
        let requests = server.received_requests().await.unwrap();
        // The edit twice, its price, and the job's submission, status and result.
        assert_eq!(requests.len(), 6);
        assert!(requests.iter().all(|request| request.headers["traceparent"].to_str().unwrap().contains(&trace)));
    });
}

#[test]
fn without_a_span_there_is_no_header() {
    run(async || {
        let (server, client) = server().await;
        assert_eq!(headers(&server, &client).await, [None, None]);
    });
}

#[test]
fn a_span_of_opentelemetry_alone_is_named_too() {
    run(async || {
        let (server, client) = server().await;
        global::set_tracer_provider(SdkTracerProvider::builder().build());
        let context = Context::current_with_span(global::tracer("test").start("asset"));
        let trace = context.span().span_context().trace_id().to_string();
        let [sent, _] = headers(&server, &client).with_context(context).await;
        assert!(sent.expect("the header is sent").contains(&trace));
    });
}
