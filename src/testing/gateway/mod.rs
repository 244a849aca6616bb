//! The gateway over HTTP, without a gateway.

mod account;
mod faults;
mod images;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use self::account::{Entry, Outcome};
pub use self::faults::Fault;
use self::faults::{Faults, Rule};
use super::http::{Answer, Form, Request};
use crate::Client;
use crate::error::Error;
use crate::generated;
use crate::remote::ClientBuilder;

const KEY: &str = "lmnfl_mock.secret";

/// A server on the loopback interface that speaks as the gateway does, checks requests by the same schemas
/// as the typed builders, and answers with grey pixels. It ends when it is dropped.
///
/// Prices are those of the model's schema, where no provider is pinned those of the dearest. The account tells of
/// the requests that came, and has 100 USD less what they cost; it never runs out. The addresses of images are
/// signed, and refused without their signature, or with the key, which is not theirs to see.
///
/// Of the recorder's modes it knows what they cost: `mock` and `replay-or-mock` are free, and as it keeps no
/// recordings, `replay-or-error` always fails with `RECORDING_NOT_FOUND` and the others execute the request.
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
    entries: Vec<Entry>,
    requests: Faults,
    downloads: Faults,
}

/// A request that the gateway received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// The name that the gateway gave it, `req_…`.
    pub id: String,
    /// `generations` or `edits`.
    pub endpoint: String,
    /// What follows the `?` of its address.
    pub query: String,
    /// Its fields; those of a form as text.
    pub fields: Map<String, Value>,
    /// The names of its files' fields.
    pub files: Vec<String>,
    /// Whether the account was asked to delete what is stored of it.
    pub purged: bool,
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
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A client that went away is its own business.
                connections.spawn(serve(stream, address, Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
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
        lock(&self.state).requests.next.push_back(fault);
    }

    /// Does with each coming request for images what `rule` says, unless a fault of
    /// [`fault_next`](Self::fault_next) is left, which goes first. It takes the place of an earlier rule.
    ///
    /// ```
    /// use lumenfall::testing::{Fault, MockGateway};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = MockGateway::start().await?;
    /// gateway.fault_when(|request| (request.fields["user"] == "unlucky").then_some(Fault::Status(500)));
    /// let client = gateway.client()?;
    /// assert!(client.images().generate("a lighthouse").user("lucky").send().await.is_ok());
    /// assert!(client.images().generate("a lighthouse").user("unlucky").send().await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn fault_when(&self, rule: impl Fn(&Received) -> Option<Fault> + Send + Sync + 'static) {
        lock(&self.state).requests.rule = Some(Rule(Arc::new(rule)));
    }

    /// Does this with a coming download of an image, as [`fault_next`](Self::fault_next) does with a request for images.
    ///
    /// ```
    /// use lumenfall::ErrorKind;
    /// use lumenfall::testing::{Fault, MockGateway};
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = MockGateway::start().await?;
    /// let images = gateway.client()?.images().generate("a lighthouse").send().await?;
    /// // As an address that has expired.
    /// gateway.fault_next_download(Fault::Status(403));
    /// assert_eq!(images[0].download().await.unwrap_err().kind(), ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fault_next_download(&self, fault: Fault) {
        lock(&self.state).downloads.next.push_back(fault);
    }

    /// Does with each coming download what `rule` says of the request that made the image, as
    /// [`fault_when`](Self::fault_when) does with requests.
    pub fn fault_downloads_when(&self, rule: impl Fn(&Received) -> Option<Fault> + Send + Sync + 'static) {
        lock(&self.state).downloads.rule = Some(Rule(Arc::new(rule)));
    }

    /// The requests for images that came, oldest first, faulted ones and dry runs included.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).entries.iter().map(|entry| entry.received.clone()).collect()
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

/// Answers one request after the other.
async fn serve(mut stream: TcpStream, address: SocketAddr, state: Arc<Mutex<State>>) -> io::Result<()> {
    while let Some(request) = Request::read(&mut stream).await? {
        let goes_on = answer(&mut stream, &request, address, &state).await?;
        if !goes_on || request.is_last() {
            break;
        }
    }
    Ok(())
}

/// Answers, and tells whether the connection can go on.
async fn answer(
    stream: &mut TcpStream,
    request: &Request,
    address: SocketAddr,
    state: &Mutex<State>,
) -> io::Result<bool> {
    if let Some(file) = request.path.strip_prefix("/files/") {
        return serve_file(stream, file, request, state).await;
    }
    let answer = if request.header("authorization") != Some(&format!("Bearer {KEY}")) {
        refusal(401, "AUTHENTICATION_FAILED", "the key is wrong")
    } else {
        match request.path.strip_prefix("/openai/v1/images/").filter(|_| request.method == "POST") {
            Some(endpoint) => return serve_images(stream, endpoint, request, address, state).await,
            None => free(request, state),
        }
    };
    faults::deliver(stream, None, answer).await
}

async fn serve_images(
    stream: &mut TcpStream,
    endpoint: &str,
    request: &Request,
    address: SocketAddr,
    state: &Mutex<State>,
) -> io::Result<bool> {
    let mut form = request.form();
    let (index, received) = receive(state, endpoint, request, &form);
    let id = received.id.clone();
    let fault = decide(state, |state| &mut state.requests, &received);
    let finish = |outcome: Outcome| {
        if let Some(entry) = lock(state).entries.get_mut(index) {
            entry.finish(outcome);
        }
    };
    if !faults::hold(stream, fault.as_ref()).await {
        finish(Outcome::cancelled());
        return Ok(false);
    }
    if fault == Some(Fault::OtherDelivery) {
        images::deliver_otherwise(&mut form);
    }
    let (outcome, answer) = match fault.as_ref().and_then(Fault::refusal) {
        Some(refusal) => (Outcome::of_refusal(&refusal), refusal),
        None => match images::made(&id, endpoint, request, form, address) {
            Ok(made) => (Outcome::completed(made.micros), made.answer),
            Err(refusal) => (Outcome::of_refusal(&refusal), refusal),
        },
    };
    finish(outcome);
    faults::deliver(stream, fault, answer.header("x-lumenfall-request-id", &id)).await
}

async fn serve_file(stream: &mut TcpStream, path: &str, request: &Request, state: &Mutex<State>) -> io::Result<bool> {
    let maker =
        lock(state).entries.iter().map(|entry| &entry.received).find(|made| made.id == images::maker(path)).cloned();
    let fault = maker.and_then(|maker| decide(state, |state| &mut state.downloads, &maker));
    if !faults::hold(stream, fault.as_ref()).await {
        return Ok(false);
    }
    let refusal = fault.as_ref().and_then(Fault::refusal);
    let answer = refusal.unwrap_or_else(|| images::file(path, request));
    faults::deliver(stream, fault, answer).await
}

/// Keeps a request, and tells its place among all.
fn receive(state: &Mutex<State>, endpoint: &str, request: &Request, form: &Form) -> (usize, Received) {
    let mut state = lock(state);
    let index = state.entries.len();
    let received = Received {
        id: format!("req_mock_{}", index + 1),
        endpoint: endpoint.to_owned(),
        query: request.query.clone(),
        fields: form.fields.clone(),
        files: form.files.iter().map(|(name, _)| name.clone()).collect(),
        purged: false,
    };
    state.entries.push(Entry::new(received.clone(), request));
    (index, received)
}

fn decide(state: &Mutex<State>, faults: fn(&mut State) -> &mut Faults, received: &Received) -> Option<Fault> {
    let rule = {
        let mut state = lock(state);
        let faults = faults(&mut state);
        if let Some(fault) = faults.next.pop_front() {
            return Some(fault);
        }
        faults.rule.clone()
    };
    // Unlocked, since the rule may ask the gateway something.
    rule.and_then(|Rule(rule)| rule(received))
}

/// The answers that cost nothing.
fn free(request: &Request, state: &Mutex<State>) -> Answer {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 1_234_567_890, "owned_by": "stability-ai" });
    let schema = &generated::stable_diffusion_3_5_medium::SCHEMA;
    let known = schema.id;
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/openai/v1/models") => Answer::json(200, &json!({ "object": "list", "data": [model(known)] })),
        ("GET", path) if path.strip_prefix("/openai/v1/models/") == Some(known) => Answer::json(200, &model(known)),
        ("GET", path) if path.strip_prefix("/v1/models/") == Some(known) => {
            let mut answer = model(known);
            let asked = request.parameter("schema").as_deref() == Some("true");
            if let Some(answer) = answer.as_object_mut().filter(|_| asked) {
                answer.insert("schema".into(), serde_json::from_str(schema.json).unwrap_or_default());
            }
            Answer::json(200, &answer)
        }
        _ => account::answer(request, &mut lock(state).entries)
            .unwrap_or_else(|| refusal(404, "NOT_FOUND", "there is nothing here")),
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::json(status, &json!({ "error": { "message": message, "type": "mock", "code": code } }))
}
