//! A server that imitates the Lumenfall gateway.

mod account;
mod delivery;
mod faults;
mod http;
mod images;
mod server;

use std::io;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::account::KEY;
pub use self::account::Received;
pub use self::faults::Fault;
use self::server::Server;
use crate::Client;
use crate::error::Error;
use crate::remote::{Remote, RemoteBuilder};

/// An HTTP server on the loopback interface that imitates the Lumenfall gateway. It stops when it is dropped.
///
/// It checks each request against the schema of its model and returns images of one gray pixel. URLs of images are
/// signed: a download without the signature, or with the API key, is rejected.
///
/// Prices are those of the model's schema; if no provider is pinned, the most expensive one is used. The account lists
/// the image requests and their cost. Its balance starts at 100 USD and may become negative.
///
/// It speaks HTTP/1.1 and, without TLS, HTTP/2. A request with `"stream": true` receives server-sent events, with up to three
/// `partial_images` before each image, as OpenAI documents. The `revised_prompt` of an image is the prompt.
///
/// It does not support the recorder, and lists past requests without filters and summaries.
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
/// // The first attempt was not executed, so the client retried it.
/// assert_eq!(gateway.received().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MockGateway {
    server: Arc<Server>,
    task: JoinHandle<()>,
}

impl MockGateway {
    /// Starts a gateway on a free port.
    ///
    /// # Errors
    /// If no port can be opened.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let server = Arc::new(Server { address: listener.local_addr()?, state: Mutex::default() });
        let task = tokio::spawn(Arc::clone(&server).run(listener));
        Ok(Self { server, task })
    }

    /// Returns the base URL of the OpenAI-compatible API.
    pub fn base_url(&self) -> String {
        format!("http://{}/openai/v1", self.server.address)
    }

    /// Returns the one API key that the gateway accepts.
    pub fn key(&self) -> &str {
        KEY
    }

    /// Returns a builder for a backend that uses this gateway.
    pub fn builder(&self) -> RemoteBuilder {
        let native_url = format!("http://{}/v1", self.server.address);
        Remote::builder().api_key(KEY).base_url(self.base_url()).native_url(native_url)
    }

    /// Creates a client that uses this gateway.
    ///
    /// # Errors
    /// The errors of [`RemoteBuilder::build`].
    pub fn client(&self) -> Result<Client, Error> {
        self.builder().build().map(Client::new)
    }

    /// Queues a fault for the next image request. Queued faults are applied in order, one per request.
    pub fn fault_next(&self, fault: Fault) {
        self.server.state().requests.queue.push_back(fault);
    }

    /// Sets a rule that chooses the fault for each image request, and replaces an earlier rule. Faults that are queued
    /// by [`fault_next`](Self::fault_next) take precedence.
    pub fn fault_when(&self, rule: impl Fn(&Received) -> Option<Fault> + Send + Sync + 'static) {
        self.server.state().requests.rule = Some(Arc::new(rule));
    }

    /// Queues a fault for the next download of an image, such as `Fault::Status(403)` for a URL that has expired.
    /// Queued faults are applied in order, one per download.
    pub fn fault_next_download(&self, fault: Fault) {
        self.server.state().downloads.queue.push_back(fault);
    }

    /// Sets a rule that chooses the fault for each download from the request that generated the image, and replaces an
    /// earlier rule. Faults that are queued by [`fault_next_download`](Self::fault_next_download) take precedence.
    pub fn fault_downloads_when(&self, rule: impl Fn(&Received) -> Option<Fault> + Send + Sync + 'static) {
        self.server.state().downloads.rule = Some(Arc::new(rule));
    }

    /// Returns the image requests that arrived, oldest first, including dry runs and requests with a fault.
    pub fn received(&self) -> Vec<Received> {
        self.server.state().entries.iter().map(|entry| entry.received.clone()).collect()
    }
}

impl Drop for MockGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}
