//! What the tests share: specs, servers, a reader of multipart bodies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lumenfall::RetryPolicy;
use lumenfall::backend::{Backend, EditSpec, GenerateSpec, Options, Progress, RequestContext};
use lumenfall::remote::{ClientBuilder, Remote};
use lumenfall::{Address, Client, Error, Images, Inline, Input, ResponseFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

pub(crate) const MODEL: &str = "stable-diffusion-3.5-medium";
pub(crate) const KEY: &str = "lmnfl_id.canary-4711";
/// The head of a PNG file: all that is looked at.
pub(crate) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and the rest of a picture";
pub(crate) const JPEG: &[u8] = b"\xff\xd8\xff\xe0 and the rest of a picture";
pub(crate) const ONE_ADDRESS: &str =
    r#"{"created":1234567890,"data":[{"url":"https://media.example/1.png","revised_prompt":"a cat"}]}"#;

pub(crate) fn generate_spec() -> GenerateSpec {
    GenerateSpec { model: MODEL.into(), prompt: "a cat".into(), options: Options::default() }
}

pub(crate) fn edit_spec(images: Vec<Input>) -> EditSpec {
    EditSpec { model: MODEL.into(), images, mask: None, prompt: None, options: Options::default() }
}

pub(crate) fn builder(base_url: &str) -> ClientBuilder {
    Client::builder().api_key(KEY).base_url(base_url)
}

pub(crate) fn remote(server: &MockServer) -> Remote {
    builder(&server.uri()).backend().unwrap()
}

/// The same, of a server that is said to be the gateway.
pub(crate) fn gateway(server: &MockServer) -> Remote {
    builder(&server.uri()).native_url(server.uri()).backend().unwrap()
}

pub(crate) fn patient(retries: u32) -> RetryPolicy {
    RetryPolicy::default().max_retries(retries)
}

/// A HTTP client of the caller's own. It needs to be told of a cipher suite, which ours brings along.
pub(crate) fn own_http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// 40 MB of spaces in 53 kB: a file of gzip may have many members.
pub(crate) fn gzip_bomb() -> Vec<u8> {
    include_bytes!("spaces.gz").repeat(400)
}

/// A server that answers every POST in the same way.
pub(crate) async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

/// `PNG` as base64.
pub(crate) fn png_base64() -> String {
    base64_simd::STANDARD.encode_to_string(PNG)
}

/// A server whose answers point to an image on itself.
pub(crate) async fn with_image(image: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let address = format!("{}/files/1.png?signature=canary", server.uri());
    let body = serde_json::json!({ "data": [{ "url": address }] }).to_string();
    Mock::given(method("POST")).respond_with(json(200, &body)).mount(&server).await;
    Mock::given(path("/files/1.png")).respond_with(image).mount(&server).await;
    server
}

/// A server whose answer has these addresses.
pub(crate) async fn with_addresses(addresses: &[&str]) -> MockServer {
    let data: Vec<_> = addresses.iter().map(|address| serde_json::json!({ "url": address })).collect();
    let body = serde_json::json!({ "data": data }).to_string();
    answering(json(200, &body).insert_header("X-Lumenfall-Request-Id", "req_9")).await
}

pub(crate) fn json(status: u16, body: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body, "application/json")
}

pub(crate) async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.unwrap()
}

/// Answers in this way at this path, so many times or always.
pub(crate) async fn on(server: &MockServer, verb: &str, at: &str, times: Option<u64>, answer: ResponseTemplate) {
    let mock = Mock::given(method(verb)).and(path(at)).respond_with(answer);
    match times {
        Some(times) => mock.up_to_n_times(times).mount(server).await,
        None => mock.mount(server).await,
    }
}

/// How many requests with this method came to a path that ends so.
pub(crate) async fn count(server: &MockServer, verb: &str, tail: &str) -> usize {
    let requests = requests(server).await;
    requests.iter().filter(|request| request.method.as_str() == verb && request.url.path().ends_with(tail)).count()
}

/// A context that keeps what it is told.
pub(crate) fn listening() -> (RequestContext, Arc<Mutex<Vec<Progress>>>) {
    let heard = Arc::<Mutex<Vec<Progress>>>::default();
    let mut context = RequestContext::default();
    let ear = Arc::clone(&heard);
    context.progress = Some(Arc::new(move |progress| ear.lock().unwrap().push(progress)));
    (context, heard)
}

pub(crate) async fn generate(remote: &Remote) -> Result<Images<Address>, Error> {
    generate_with(remote, RequestContext::default()).await
}

pub(crate) async fn generate_with(remote: &Remote, context: RequestContext) -> Result<Images<Address>, Error> {
    let output = remote.generate(generate_spec(), context).await?;
    Images::receive(Arc::new(remote.clone()), output).await
}

pub(crate) async fn generate_inline(remote: &Remote) -> Result<Images<Inline>, Error> {
    let mut spec = generate_spec();
    spec.options.response_format = Some(ResponseFormat::B64Json);
    let output = remote.generate(spec, RequestContext::default()).await?;
    Images::receive(Arc::new(remote.clone()), output).await
}

/// A folder of its own that vanishes with the value.
pub(crate) struct Folder(std::path::PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lumenfall-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> std::path::PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One part of a multipart body.
#[derive(Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) file_name: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) content: Vec<u8>,
}

impl Part {
    pub(crate) fn field(name: &str, value: &str) -> Self {
        Self { name: name.into(), file_name: None, media_type: None, content: value.into() }
    }

    pub(crate) fn file(name: &str, file_name: &str, media_type: &str, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            file_name: Some(file_name.into()),
            media_type: Some(media_type.into()),
            content: content.into(),
        }
    }
}

/// The parts of a multipart request, in order of their names.
pub(crate) fn parts(request: &Request) -> Vec<Part> {
    let content_type = request.headers["content-type"].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let delimiter = format!("--{boundary}");
    let mut parts = Vec::new();
    for chunk in split(&request.body, delimiter.as_bytes()) {
        let Some(chunk) = chunk.strip_prefix(b"\r\n") else { continue };
        let head_end = find(chunk, b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&chunk[..head_end]).unwrap();
        let content = chunk[head_end + 4..].strip_suffix(b"\r\n").unwrap().to_vec();
        let attribute = |name: &str| {
            let start = head.find(&format!(" {name}=\""))? + name.len() + 3;
            Some(head[start..].split('"').next().unwrap().to_owned())
        };
        let media_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).map(str::to_owned);
        parts.push(Part { name: attribute("name").unwrap(), file_name: attribute("filename"), media_type, content });
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    parts
}

fn split<'a>(mut body: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    while let Some(at) = find(body, delimiter) {
        chunks.push(&body[..at]);
        body = &body[at + delimiter.len()..];
    }
    chunks
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// What a raw server does with a connection once it has read the request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Writes these bytes and closes in good order.
    Say(Vec<u8>),
    /// Writes these bytes and resets the connection.
    SayAndReset(Vec<u8>),
    /// Writes these bytes and stays silent.
    SayAndHang(Vec<u8>),
    /// Writes the head, then one byte at a time.
    Drip(Vec<u8>, Duration),
    /// Writes the head, then the same bytes for ever.
    Forever(Vec<u8>),
    /// Writes these bytes and closes before it has read anything.
    Greet(Vec<u8>),
    /// Writes these bytes when a part of the request has come, and reads the rest; without bytes it resets the connection.
    Interrupt(Vec<u8>),
}

/// A server that knows no HTTP and so can break it at any place.
pub(crate) struct RawServer {
    pub(crate) uri: String,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl RawServer {
    pub(crate) async fn start(act: Act) -> Self {
        Self::start_with(vec![act]).await
    }

    /// The acts follow each other; the last one holds from then on.
    pub(crate) async fn start_with(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let last = acts.last().cloned();
            let mut acts = acts.into_iter();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = acts.next().or(last.clone()).unwrap();
                tokio::spawn(serve(stream, act, Arc::clone(&count)));
            }
        });
        Self { uri, requests, task }
    }

    /// How many requests it has read, each whole or as far as it meant to.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, act: Act, count: Arc<AtomicUsize>) {
    if let Act::Greet(bytes) = act {
        let _ = stream.write_all(&bytes).await;
        return;
    }
    if let Act::Interrupt(bytes) = act {
        return interrupt(stream, &bytes, &count).await;
    }
    if !read_request(&mut stream).await {
        return;
    }
    count.fetch_add(1, Ordering::SeqCst);
    match act {
        Act::Greet(_) | Act::Interrupt(_) => {}
        Act::Say(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Act::SayAndReset(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            // The bytes are to arrive before the reset discards them.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = stream.set_zero_linger();
        }
        Act::SayAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Act::Drip(bytes, pause) => {
            for byte in bytes {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
        Act::Forever(bytes) => while stream.write_all(&bytes).await.is_ok() {},
    }
}

async fn interrupt(mut stream: TcpStream, bytes: &[u8], count: &AtomicUsize) {
    let mut piece = vec![0; 1 << 16];
    if stream.read_exact(&mut piece).await.is_err() {
        return;
    }
    count.fetch_add(1, Ordering::SeqCst);
    if bytes.is_empty() {
        let _ = stream.set_zero_linger();
        return;
    }
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    while stream.read(&mut piece).await.is_ok_and(|length| length > 0) {}
}

/// Reads a head and as much body as its content-length says.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return false,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
        }
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.trim().parse::<usize>().unwrap());
            if bytes.len() >= end + 4 + length {
                return true;
            }
        }
    }
}
