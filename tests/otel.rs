//! The header `traceparent` is sent with API requests, and never with downloads.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use lumenfall::remote::{Fal, Remote};
use lumenfall::{Client, Input};
use opentelemetry::trace::{FutureExt, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use tracing::Instrument;
use tracing::subscriber::DefaultGuard;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use wiremock::matchers::{any, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Starts a server that responds to image requests, estimates and jobs, and serves one image.
async fn start() -> (MockServer, Client) {
    let server = MockServer::start().await;
    let url = format!("{}/image.png", server.uri());
    let body = json!({ "data": [{ "url": url }], "total_cost_micros": 1, "status": "COMPLETED", "request_id": "j1",
                       "images": [{ "url": url }] });
    let image = ResponseTemplate::new(200).set_body_bytes(PNG);
    Mock::given(path("/image.png")).respond_with(image).with_priority(1).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(&server).await;
    let remote = Remote::builder().api_key("key").base_url(server.uri()).native_url(server.uri()).build().unwrap();
    (server, Client::new(remote))
}

/// Returns the header of each request that the server received.
async fn headers(server: &MockServer) -> Vec<Option<String>> {
    let header = |request: &wiremock::Request| Some(request.headers.get("traceparent")?.to_str().unwrap().to_owned());
    server.received_requests().await.unwrap().iter().map(header).collect()
}

/// Requests an image and downloads it.
async fn generate_and_download(client: &Client) {
    let images = client.images().generate("a lighthouse").send().await.unwrap();
    images[0].download().await.unwrap();
}

/// Sets a subscriber that samples each span and exports none, until the returned value is dropped.
fn subscribe() -> DefaultGuard {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
}

#[tokio::test]
async fn each_attempt_of_each_api_request_within_a_span_has_the_header() {
    let _subscriber = subscribe();
    let (server, client) = start().await;
    let fal = Client::new(Fal::builder().api_key("key").base_url(server.uri()).build().unwrap());
    generate_and_download(&client).await;
    let rate_limit = ResponseTemplate::new(429).insert_header("retry-after-ms", "1");
    let first = Mock::given(method("POST")).respond_with(rate_limit).up_to_n_times(1);
    first.with_priority(1).mount(&server).await;
    let span = tracing::info_span!("asset");
    let trace = span.context().span().span_context().trace_id();
    async {
        client.images().edit(Input::bytes(PNG)).send().await.unwrap();
        client.images().generate("a lighthouse").estimate().await.unwrap();
        generate_and_download(&fal).await;
    }
    .instrument(span)
    .await;
    let headers = headers(&server).await;
    let own = headers[0].as_deref().unwrap();
    assert!(!own.contains(&trace.to_string()), "the request's own span has no parent: {own}");
    assert_eq!(headers[1], None, "the image's host must not learn the trace id");
    // Two attempts of the edit, the estimate, and the job's submission, status and result.
    for header in &headers[2..8] {
        let header = header.as_deref().unwrap();
        assert!(header.starts_with(&format!("00-{trace}-")) && header.ends_with("-01"), "{header}");
    }
    assert_eq!(headers[8..], [None], "the image's host must not learn the trace id");
}

#[tokio::test]
async fn a_span_of_opentelemetry_without_tracing_is_used_too() {
    let _subscriber = subscribe();
    let (server, client) = start().await;
    global::set_tracer_provider(SdkTracerProvider::builder().build());
    let context = Context::current_with_span(global::tracer("test").start("asset"));
    let trace = context.span().span_context().trace_id().to_string();
    generate_and_download(&client).with_context(context).await;
    assert!(headers(&server).await[0].as_ref().is_some_and(|header| header.contains(&trace)));
}
