//! Request specs, clients and servers for all tests, and the names that most tests use.

mod clock;
pub(crate) mod providers;
mod raw;

use std::net::SocketAddr;
pub(crate) use std::sync::{Arc, Mutex};
pub(crate) use std::time::Duration;

use lumenfall::remote::RemoteBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use wiremock::matchers::{method, path};

pub(crate) use self::clock::{paused, wait};
pub(crate) use self::raw::{Act, RawServer, response};
pub(crate) use lumenfall::backend::{
    Backend, Content, EditSpec, GenerateSpec, Output, Progress, Request, RequestContext,
};
pub(crate) use lumenfall::remote::{Fal, Remote, Replicate};
pub(crate) use lumenfall::{Client, Error, ErrorKind, Hosted, Images, Inline, Input, OutputFormat, RetryPolicy};
pub(crate) use serde_json::{Value, json};
pub(crate) use tokio::time::Instant;
pub(crate) use wiremock::{Mock, MockServer, ResponseTemplate};

pub(crate) const MODEL: &str = "stable-diffusion-3.5-medium";
pub(crate) const KEY: &str = "lmnfl_id.canary-4711";
/// Starts with the signature of a PNG file, which is the only part that the client inspects.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and the rest of an image";
pub(crate) const JPEG: &[u8] = b"\xff\xd8\xff\xe0 and the rest of an image";
pub(crate) const ONE_URL: &str =
    r#"{"created":1234567890,"data":[{"url":"https://media.example/1.png","revised_prompt":"a cat"}]}"#;
/// Nothing listens at this URL.
pub(crate) const UNREACHABLE: &str = "http://127.0.0.1:9";

pub(crate) fn generate_spec() -> GenerateSpec {
    GenerateSpec::new(MODEL, "a cat")
}

pub(crate) fn edit_spec(images: impl Into<Vec<Input>>) -> EditSpec {
    EditSpec::new(MODEL, images.into())
}

pub(crate) fn builder(base_url: &str) -> RemoteBuilder {
    Remote::builder().api_key(KEY).base_url(base_url)
}

pub(crate) fn remote(base_url: &str) -> Remote {
    builder(base_url).build().unwrap()
}

/// A client for a server that is declared to be the gateway.
pub(crate) fn gateway(url: &str) -> Remote {
    builder(url).native_url(url).build().unwrap()
}

/// A custom HTTP client. Unlike the default one, it needs a TLS implementation to be installed.
pub(crate) fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// Returns a URL for this server with a host name, and an HTTP client that resolves the name after a delay.
pub(crate) fn slow_to_connect(uri: &str, delay: u64) -> (String, reqwest::ClientBuilder) {
    let resolver = Resolver(Duration::from_secs(delay), uri.strip_prefix("http://").unwrap().parse().ok());
    (uri.replace("127.0.0.1", "host.invalid"), http_client().dns_resolver(Arc::new(resolver)))
}

/// Resolves any host name to this address, or to none, after a delay.
pub(crate) struct Resolver(pub(crate) Duration, pub(crate) Option<SocketAddr>);

impl Resolve for Resolver {
    fn resolve(&self, _: Name) -> Resolving {
        let Self(delay, address) = *self;
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let address = address.ok_or("no such host")?;
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}

/// Requests an image through the typed API.
pub(crate) async fn generate(remote: &Remote) -> Result<Images<Hosted>, Error> {
    Client::new(remote.clone()).images().generate("a cat").send().await
}

pub(crate) async fn generate_inline(remote: &Remote) -> Result<Images<Inline>, Error> {
    Client::new(remote.clone()).images().generate("a cat").inline().send().await
}

pub(crate) async fn send(backend: &dyn Backend, spec: GenerateSpec) -> Result<Output, Error> {
    backend.send(spec.into(), RequestContext::default()).await
}

pub(crate) async fn send_edit(backend: &dyn Backend, spec: EditSpec) -> Result<Output, Error> {
    backend.send(spec.into(), RequestContext::default()).await
}

/// Returns a context and the progress that is reported to it.
pub(crate) fn progress() -> (RequestContext, Arc<Mutex<Vec<Progress>>>) {
    let reported = Arc::<Mutex<Vec<_>>>::default();
    let report = Arc::clone(&reported);
    let mut context = RequestContext::default();
    context.progress = Some(Arc::new(move |progress| report.lock().unwrap().push(progress)));
    (context, reported)
}

pub(crate) fn png_base64() -> String {
    base64_simd::STANDARD.encode_to_string(PNG)
}

/// A compressed body of 53 kB that expands to 40 MB of spaces. A gzip file may consist of several members.
pub(crate) fn gzip_bomb() -> Vec<u8> {
    include_bytes!("../spaces.gz").repeat(400)
}

/// A response body that contains these URLs.
pub(crate) fn with_urls(urls: &[&str]) -> String {
    let data: Vec<_> = urls.iter().map(|url| json!({ "url": url })).collect();
    json!({ "data": data }).to_string()
}

pub(crate) fn json_response(status: u16, body: impl ToString) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/json")
}

/// Adds a response for a method and path, for the first `times` requests or always.
pub(crate) async fn on(server: &MockServer, verb: &str, at: &str, times: Option<u64>, response: ResponseTemplate) {
    let mock = Mock::given(method(verb)).and(path(at)).respond_with(response);
    mock.up_to_n_times(times.unwrap_or(u64::MAX)).mount(server).await;
}

/// A server that sends the same response to every POST request.
pub(crate) async fn responding(response: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(response).mount(&server).await;
    server
}

/// A server whose response contains the URL of an image on the same server.
pub(crate) async fn with_image(image: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let url = format!("{}/files/1.png?signature=canary", server.uri());
    Mock::given(method("POST")).respond_with(json_response(200, with_urls(&[&url]))).mount(&server).await;
    on(&server, "GET", "/files/1.png", None, image).await;
    server
}

pub(crate) async fn requests(server: &MockServer) -> Vec<wiremock::Request> {
    server.received_requests().await.unwrap()
}

/// The JSON body of the first request.
pub(crate) async fn sent_json(server: &MockServer) -> Value {
    requests(server).await[0].body_json().unwrap()
}
