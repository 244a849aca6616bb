//! The servers: one without TLS that speaks HTTP/1.1, and one with TLS that speaks HTTP/2. The first part of a path
//! names the scene, and all that they say is full of secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request};
use lumenfall::testing::PIXEL;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{KEY, SIGNATURE};

pub(crate) struct Stage {
    pub(crate) base: String,
    keys: AtomicUsize,
    signatures: AtomicUsize,
    traces: AtomicUsize,
    cancellations: AtomicUsize,
}

struct Answer {
    delay: Duration,
    status: u16,
    headers: [(&'static str, String); 6],
    body: Bytes,
}

impl Stage {
    fn new(base: String) -> Arc<Self> {
        let none = || AtomicUsize::new(0);
        Arc::new(Self { base, keys: none(), signatures: none(), traces: none(), cancellations: none() })
    }

    /// A stage, and the server that it lives with.
    pub(crate) async fn plain() -> (Arc<Self>, MockServer) {
        let server = MockServer::start().await;
        let stage = Self::new(server.uri());
        let shared = Arc::clone(&stage);
        let respond = move |request: &wiremock::Request| {
            let (path, query) = (request.url.path(), request.url.query().unwrap_or_default());
            shared.count(&request.headers, query);
            let Answer { delay, status, headers, body } = shared.answer(request.method.as_str(), path, query);
            let template = ResponseTemplate::new(status).set_body_bytes(body).set_delay(delay);
            headers.into_iter().fold(template, |template, (name, value)| template.insert_header(name, value.as_str()))
        };
        Mock::given(any()).respond_with(respond).mount(&server).await;
        (stage, server)
    }

    /// It speaks nothing but HTTP/2, which is agreed upon with the handshake.
    pub(crate) async fn tls(mut config: ServerConfig) -> Arc<Self> {
        config.alpn_protocols = vec!["h2".into()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stage = Self::new(format!("https://localhost:{}", listener.local_addr().unwrap().port()));
        let shared = Arc::clone(&stage);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(acceptor.clone(), stream, Arc::clone(&shared)));
            }
        });
        stage
    }

    /// How many requests came with a key.
    pub(crate) fn keys(&self) -> usize {
        self.keys.load(Ordering::SeqCst)
    }

    /// How many requests came to a signed address.
    pub(crate) fn signatures(&self) -> usize {
        self.signatures.load(Ordering::SeqCst)
    }

    /// How many requests named the span that they were made in.
    pub(crate) fn traces(&self) -> usize {
        self.traces.load(Ordering::SeqCst)
    }

    /// How many jobs were cancelled.
    pub(crate) fn cancellations(&self) -> usize {
        self.cancellations.load(Ordering::SeqCst)
    }

    fn signed(&self, path: &str) -> String {
        format!("{}{path}?sig={SIGNATURE}", self.base)
    }

    fn count(&self, headers: &HeaderMap, query: &str) {
        for (count, holds) in [
            (&self.keys, headers.contains_key("authorization")),
            (&self.signatures, query.contains(SIGNATURE)),
            (&self.traces, headers.contains_key("traceparent")),
        ] {
            count.fetch_add(usize::from(holds), Ordering::SeqCst);
        }
    }

    fn answer(&self, method: &str, path: &str, query: &str) -> Answer {
        let path: Vec<_> = path.split('/').skip(1).collect();
        let (status, location, body) = match path[..] {
            ["files", file] => self.file(file),
            [scene, "v1", ref path @ ..] => {
                let (status, body) = self.json(scene, method, path, query);
                (status, self.signed("/files/good"), body.to_string().into())
            }
            _ => (404, String::new(), Bytes::new()),
        };
        // A job is taken so late that nobody waits for it any more.
        let late = matches!((method, &path[..]), ("POST", ["late", "v1", place @ ..]) if !place.ends_with(&["cancel"]));
        Answer {
            delay: if late { Duration::from_secs(3) } else { Duration::ZERO },
            status,
            headers: [
                ("location", location),
                ("x-echo", format!("Bearer {KEY}")),
                ("link", self.signed("/more")),
                ("x-lumenfall-provider", KEY.into()),
                ("x-lumenfall-model", KEY.into()),
                ("x-request-id", KEY.into()),
            ],
            body,
        }
    }

    fn file(&self, file: &str) -> (u16, String, Bytes) {
        let nowhere = String::new();
        match file {
            "good" => (200, nowhere, PIXEL.into()),
            "moved" => (302, self.signed("/files/good"), Bytes::new()),
            "round" => (302, self.signed("/files/round"), Bytes::new()),
            "lost" => (302, format!("ftp://files.example/1.png?sig={SIGNATURE}"), Bytes::new()),
            _ => (403, nowhere, self.refusal().to_string().into()),
        }
    }

    /// A refusal that quotes what it must not.
    fn refusal(&self) -> Value {
        let message =
            format!("the key {KEY} must not GET /files/gone?sig={SIGNATURE} ({})", self.signed("/files/gone"));
        json!({ "error": { "message": message, "code": KEY, "param": KEY } })
    }

    fn json(&self, scene: &str, method: &str, path: &[&str], query: &str) -> (u16, Value) {
        let image = self.signed(&format!("/files/{scene}"));
        let refused = self.refusal()["error"]["message"].clone();
        let record = json!({ "id": "req_1", "status": "upstream_failure", "error_message": refused });
        match (scene, method, path) {
            ("refusing", "POST", ["images", ..]) => (400, self.refusal()),
            ("elsewhere", "POST", _) => (307, json!({})),
            (_, "POST", ["images", _]) if query.contains("dryRun=true") => (
                200,
                json!({ "total_cost_micros": 20_000, "currency": KEY, "provider": KEY, "model": KEY, "components": [{ "type": KEY }] }),
            ),
            (_, "POST", ["images", _]) => (
                200,
                json!({
                    "created": 1_234_567_890, "data": [{ "url": image }, { "b64_json": "iVBORw0KGgo=" }],
                    "metadata": { "attempts": [{ "url": self.signed("/attempt") }], "executed_model": KEY }
                }),
            ),
            (_, "GET", ["requests"]) if query.contains("starting_after") => (200, json!({ "data": [record] })),
            (_, "GET", ["requests"]) => (
                200,
                json!({ "data": [record], "next_page_url": self.signed("/more"), "summary": { "export": self.signed("/all") } }),
            ),
            (_, "GET", ["requests", "req_1"]) => (200, record),
            (_, "GET", ["balance"]) => {
                (200, json!({ "billing_type": "prepaid", "available": { "amount": 1.5, "currency": "usd" } }))
            }
            (_, "GET", ["models"]) => (200, json!({ "data": [{ "id": "a-model" }] })),
            (_, "GET", ["models", id]) => (200, json!({ "id": id, "schema": {}, "source": self.signed("/schema") })),
            ("refusing", "POST", ["fal-ai", _]) => (422, json!({ "detail": [{ "msg": refused }] })),
            (_, "POST", ["fal-ai", _]) => (200, json!({ "request_id": KEY, "status_url": self.signed("/status") })),
            ("waiting", "GET", ["fal-ai", _, "requests", _, "status"]) => {
                (200, json!({ "status": "IN_PROGRESS", "logs": refused }))
            }
            ("waiting", "GET", ["predictions", _]) => (200, json!({ "status": "processing", "logs": refused })),
            (_, "PUT", ["fal-ai", _, "requests", _, "cancel"]) | (_, "POST", ["predictions", _, "cancel"]) => {
                self.cancellations.fetch_add(1, Ordering::SeqCst);
                (400, self.refusal())
            }
            (_, "GET", ["fal-ai", _, "requests", _, "status"]) => {
                (200, json!({ "status": "COMPLETED", "logs": refused }))
            }
            (_, "GET", ["fal-ai", ..]) => (200, json!({ "images": [{ "url": image }] })),
            (_, "POST", ["models", ..]) => (201, json!({ "id": KEY, "urls": { "get": self.signed("/status") } })),
            ("refusing", "GET", ["predictions", _]) => (200, json!({ "status": "failed", "error": refused })),
            (_, "GET", ["predictions", _]) => {
                (200, json!({ "status": "succeeded", "output": [image], "logs": refused }))
            }
            _ => (404, self.refusal()),
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, stage: Arc<Stage>) {
    let stream = acceptor.accept(stream).await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    // Accepting is also what keeps the connection going, so each request is answered beside it.
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(reply(request, respond, Arc::clone(&stage)));
    }
}

async fn reply(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, stage: Arc<Stage>) {
    let (head, mut body) = request.into_parts();
    while let Some(Ok(piece)) = body.data().await {
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
    stage.count(&head.headers, query);
    let Answer { delay, status, headers, body } = stage.answer(head.method.as_str(), path, query);
    tokio::time::sleep(delay).await;
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    respond.send_response(response.body(()).unwrap(), false).unwrap().send_data(body, true).unwrap();
}
