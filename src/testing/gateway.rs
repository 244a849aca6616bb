//! The gateway over HTTP, without a gateway.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::http::{self, Form, Request};
use super::pixel::pixel;
use crate::Client;
use crate::backend::{EditSpec, GenerateSpec, Options};
use crate::error::Error;
use crate::generated;
use crate::images::{Input, OutputFormat};
use crate::remote::ClientBuilder;

/// The price of each image, in micros.
const PRICE: u64 = 20_000;
const KEY: &str = "lmnfl_mock.secret";

/// A server on the loopback interface that speaks as the gateway does, checks requests by the same schemas
/// as the typed builders, and answers with grey pixels. It ends when it is dropped.
///
/// ```
/// use lumenfall::testing::{Fault, MockGateway};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = MockGateway::start().await?;
/// gateway.fault_next(Fault::Status(503));
/// let images = gateway.client()?.images().generate("a lighthouse").inline().send().await?;
/// assert_eq!(images[0].media_type(), Some("image/png"));
/// // The first try was not executed, so it was tried again.
/// assert_eq!(gateway.received().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MockGateway {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    received: Vec<Received>,
    faults: VecDeque<Fault>,
}

/// A request that the gateway received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// `generations` or `edits`.
    pub endpoint: String,
    /// What follows the `?` of its address.
    pub query: String,
    /// Its fields; those of a form as text.
    pub fields: Map<String, Value>,
    /// The names of its files' fields.
    pub files: Vec<String>,
}

/// What goes wrong with a request for images.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// An answer with this status and no explanation.
    Status(u16),
    /// An answer with this status and a code of the gateway.
    Code(u16, String),
    /// 429 with a wait to obey.
    RateLimited(Duration),
    /// The connection breaks before the answer.
    Reset,
    /// The connection breaks in the middle of the answer.
    ResetInBody,
    /// No answer for this time, and then the right one.
    Delay(Duration),
    /// An answer that is not JSON.
    Garbage,
    /// An answer without images.
    NoImages,
}

impl MockGateway {
    /// A gateway on a free port.
    ///
    /// # Errors
    /// Where no port can be opened.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that went away is its own business.
                tokio::spawn(serve(stream, address, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, state, task })
    }

    /// What a client takes as its base address.
    pub fn base_url(&self) -> String {
        format!("http://{}/openai/v1", self.address)
    }

    /// The one key that is accepted.
    pub fn key(&self) -> &str {
        KEY
    }

    /// Settings of a client of this gateway.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder().api_key(KEY).base_url(self.base_url()).native_url(format!("http://{}/v1", self.address))
    }

    /// A client of this gateway.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn client(&self) -> Result<Client, Error> {
        self.builder().build()
    }

    /// Does this with a coming request for images. Several faults are used in the order of their calls.
    pub fn fault_next(&self, fault: Fault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// The requests for images that came, oldest first, faulted ones included.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }
}

impl Drop for MockGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A status and a JSON body.
type Answer = (u16, Value);

async fn serve(mut stream: TcpStream, address: SocketAddr, state: Arc<Mutex<State>>) -> io::Result<()> {
    let request = Request::read(&mut stream).await?;
    if let Some(file) = request.path.strip_prefix("/files/") {
        let format = serde_json::from_value(file.into()).unwrap_or(OutputFormat::Png);
        let kind = format!("content-type: {}\r\n", format.media_type());
        return http::answer(&mut stream, 200, &kind, pixel(format)).await;
    }
    let authorised = request.header("authorization") == Some(&format!("Bearer {KEY}"));
    let endpoint = request.path.strip_prefix("/openai/v1/images/").filter(|_| request.method == "POST");
    let (status, body) = match endpoint {
        _ if !authorised => refusal(401, "AUTHENTICATION_FAILED", "the key is wrong"),
        Some(endpoint) => {
            let form = request.form();
            let fault = {
                let mut state = lock(&state);
                state.received.push(Received {
                    endpoint: endpoint.to_owned(),
                    query: request.query.clone(),
                    fields: form.fields.clone(),
                    files: form.files.iter().map(|(name, _)| name.clone()).collect(),
                });
                state.faults.pop_front()
            };
            if let Some(fault) = fault
                && commit(&mut stream, fault).await?
            {
                return Ok(());
            }
            images(endpoint, &request.query, form, address).unwrap_or_else(|refusal| refusal)
        }
        None => other(&request),
    };
    let headers = "content-type: application/json\r\nx-lumenfall-request-id: req_mock\r\n";
    http::answer(&mut stream, status, headers, body.to_string().as_bytes()).await
}

/// Whether the fault was all of the answer.
async fn commit(stream: &mut TcpStream, fault: Fault) -> io::Result<bool> {
    match fault {
        Fault::Status(status) => http::answer(stream, status, "", b"").await?,
        Fault::Code(status, code) => {
            let (status, body) = refusal(status, &code, "a fault that the test asked for");
            http::answer(stream, status, "", body.to_string().as_bytes()).await?;
        }
        Fault::RateLimited(wait) => {
            let (status, body) = refusal(429, "RATE_LIMITED", "slow down");
            let header = format!("retry-after-ms: {}\r\n", wait.as_millis());
            http::answer(stream, status, &header, body.to_string().as_bytes()).await?;
        }
        Fault::Reset => stream.set_zero_linger()?,
        Fault::ResetInBody => {
            stream.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 1000\r\n\r\n{\"data\":[").await?;
            stream.flush().await?;
        }
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            return Ok(false);
        }
        Fault::Garbage => http::answer(stream, 200, "", b"<html>").await?,
        Fault::NoImages => http::answer(stream, 200, "", b"{\"data\":[]}").await?,
    }
    Ok(true)
}

/// The answer to a request for images, or the refusal.
fn images(endpoint: &str, query: &str, form: Form, address: SocketAddr) -> Result<Answer, Answer> {
    let Form { mut fields, files } = form;
    let named = fields.get("model").and_then(Value::as_str).unwrap_or_default();
    let (provider, model) = match named.split_once('/') {
        Some((provider, model)) => (Some(provider.to_owned()), model.to_owned()),
        None => (None, named.to_owned()),
    };
    if generated::schema(&model).is_none() {
        return Err(refusal(404, "MODEL_NOT_FOUND", &format!("there is no model {model}")));
    }
    fields.remove("model");
    let prompt = fields.remove("prompt").and_then(|prompt| prompt.as_str().map(str::to_owned));
    let mut options: Options =
        serde_json::from_value(fields.into()).map_err(|error| refusal(400, "INVALID_REQUEST", &error.to_string()))?;
    options.provider = provider.clone();
    let wanted = options.clone();
    let checked = match endpoint {
        "generations" => GenerateSpec { model: model.clone(), prompt: prompt.unwrap_or_default(), options }.validate(),
        "edits" => {
            let (masks, images): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| name == "mask");
            let input = |(_, bytes): (String, Vec<u8>)| Input::bytes(bytes);
            EditSpec {
                model: model.clone(),
                images: images.into_iter().map(input).collect(),
                mask: masks.into_iter().next().map(input),
                prompt,
                options,
            }
            .validate()
        }
        _ => return Err(refusal(404, "NOT_FOUND", "there is nothing here")),
    };
    checked.map_err(|error| refusal(400, "INVALID_REQUEST", &error.to_string()))?;

    let n = wanted.n.unwrap_or(1);
    let provider = provider.unwrap_or_else(|| "replicate".into());
    let executed = format!("{provider}/{model}");
    let micros = PRICE * u64::from(n);
    if query.split('&').any(|pair| pair == "dryRun=true") {
        let total = json!({
            "estimated": true, "model": executed, "provider": provider, "total_cost_micros": micros, "currency": "USD",
            "components": []
        });
        return Ok((200, total));
    }
    let format = wanted.output_format.unwrap_or(OutputFormat::Png);
    let image = match wanted.response_format {
        Some(crate::ResponseFormat::B64Json) => {
            json!({ "b64_json": base64_simd::STANDARD.encode_to_string(pixel(format)) })
        }
        _ => json!({ "url": format!("http://{address}/files/{}", format.media_type().trim_start_matches("image/")) }),
    };
    let cost = micros as f64 / 1e6;
    let metadata = json!({ "model": model, "executed_model": executed, "provider": provider, "cost": cost, "cost_currency": "USD" });
    Ok((200, json!({ "created": 1_234_567_890, "data": vec![image; n as usize], "metadata": metadata })))
}

/// The answers that cost nothing.
fn other(request: &Request) -> Answer {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 1_234_567_890, "owned_by": "stability-ai" });
    let schema = &generated::stable_diffusion_3_5_medium::SCHEMA;
    let known = schema.id;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/openai/v1/models") => (200, json!({ "object": "list", "data": [model(known)] })),
        ("GET", path) if path.strip_prefix("/openai/v1/models/") == Some(known) => (200, model(known)),
        ("GET", path) if path.strip_prefix("/v1/models/") == Some(known) => {
            let mut answer = model(known);
            let asked = request.query.split('&').any(|pair| pair == "schema=true");
            if let Some(answer) = answer.as_object_mut().filter(|_| asked) {
                answer.insert("schema".into(), serde_json::from_str(schema.json).unwrap_or_default());
            }
            (200, answer)
        }
        ("GET", "/v1/balance") => {
            let available = json!({ "amount": 100.0, "currency": "usd" });
            (200, json!({ "object": "balance", "billing_type": "prepaid", "available": available }))
        }
        _ => refusal(404, "NOT_FOUND", "there is nothing here"),
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    (status, json!({ "error": { "message": message, "type": "mock", "code": code } }))
}
