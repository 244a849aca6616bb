//! The Lumenfall gateway, and any other OpenAI-compatible image server, over HTTP.
//!
//! | file | concern |
//! |---|---|
//! | `builder` | settings, and what is wrong with them |
//! | `tls` | the cipher suites, and whom to trust |
//! | `key` | the key, which never prints |
//! | `fields`, `multipart`, `upload` | requests on the wire |
//! | `transport`, `wait`, `retry_after` | tries, waits, the deadline |
//! | `failure`, `clean` | what a failure means; messages without secrets |
//! | `body`, `unpack`, `lenient`, `answer`, `json`, `estimate`, `headers` | answers |
//! | `download` | images at addresses |
//! | `fal`, `replicate`, `provider`, `job`, `submission` | the providers behind the gateway, without it |
//! | `models`, `account`, `records`, `replay`, `trace` | what only the gateway offers |

mod account;
mod answer;
mod body;
mod builder;
mod clean;
mod download;
mod estimate;
mod failure;
mod fal;
mod fields;
mod headers;
mod job;
mod json;
mod key;
mod lenient;
mod models;
mod multipart;
mod provider;
mod records;
mod replay;
mod replicate;
mod retry_after;
mod submission;
#[cfg(feature = "rustls")]
mod tls;
#[cfg(feature = "otel")]
mod trace;
mod transport;
mod unpack;
mod upload;
mod wait;

#[cfg(any(test, fuzzing))]
mod readers;

use std::fmt;
use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::{Method, Request as HttpRequest};

pub use account::{Account, Balance, Billed};
pub use builder::{ClientBuilder, DEFAULT_BASE_URL};
pub use fal::FalBackend;
pub use models::{Model, Models, ServedSchema};
#[cfg(any(test, fuzzing))]
pub(crate) use readers::{file_name, read_answer, read_failure, read_retry_after, read_untouched_answer};
pub use records::{Page, RequestFilter, RequestPage, RequestRecord, RequestStatus};
pub use replay::Replay;
pub use replicate::ReplicateBackend;

use self::multipart::Edit;
use self::transport::{Call, Paid, Payload, Transport};
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, EditSpec, Estimate, GenerateSpec, Output, Request, RequestContext,
};
use crate::error::{Error, ErrorKind};
use crate::images::{OutputFormat, ResponseFormat, fetch};

/// How long an address works after its making: what the gateway and OpenAI document.
const ADDRESS_LIFETIME: Duration = Duration::from_secs(3600);

/// Makes images over HTTP. Cheap to clone: clones share connections.
///
/// Made by [`ClientBuilder::backend`]; most callers want [`ClientBuilder::build`], which wraps it in a
/// [`Client`](crate::Client).
#[derive(Clone)]
pub struct Remote {
    transport: Arc<Transport>,
    generations: Arc<HttpRequest>,
    edits: Arc<HttpRequest>,
}

impl Remote {
    fn new(transport: Arc<Transport>) -> Self {
        let [generations, edits] = ["generations", "edits"].map(|endpoint| transport.address(&["images", endpoint]));
        let generations = Arc::new(transport.json_request(generations));
        let edits = Arc::new(transport.request(Method::POST, edits));
        Self { transport, generations, edits }
    }

    /// The backend of the gateway, by the environment, as
    /// [`Client::from_env`](crate::Client::from_env) makes it.
    ///
    /// # Errors
    /// As [`ClientBuilder::build`].
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env().backend()
    }

    /// The models that the server offers.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), lumenfall::Error> {
    /// let remote = lumenfall::remote::Remote::from_env()?;
    /// for model in remote.models().list().await? {
    ///     println!("{}", model.id);
    /// }
    /// let client = lumenfall::Client::new(remote);
    /// # Ok(())
    /// # }
    /// ```
    pub fn models(&self) -> Models<'_> {
        Models(self)
    }

    /// The caller's account at the gateway.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), lumenfall::Error> {
    /// let remote = lumenfall::remote::Remote::from_env()?;
    /// println!("{:?}", remote.account().balance().await?.available);
    /// # Ok(())
    /// # }
    /// ```
    pub fn account(&self) -> Account<'_> {
        Account(self)
    }

    /// A paid call, up to its images.
    fn make<'a>(
        &'a self,
        endpoint: &'a HttpRequest,
        payload: Result<Payload, Error>,
        asked: Option<ResponseFormat>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'a, Result<Output, Error>> {
        let payload = match payload {
            Ok(payload) => payload,
            Err(error) => return Box::pin(future::ready(Err(error))),
        };
        Box::pin(async move {
            let time = self.transport.begin(deadline);
            let call = Call { request: endpoint, payload: &payload, time };
            let Paid { result: mut output, lost_bills, attempts } = self.transport.pay(&call, &answer::read).await?;
            output.metadata.lost_bills = lost_bills;
            if asked == Some(ResponseFormat::B64Json) {
                let told = |error: Error| error.with_attempts(attempts, time.started.elapsed());
                output = fetch::all(self, output, Some(time.deadline)).await.map_err(told)?;
            }
            output.metadata.addresses_expire = expiry(output.metadata.created, SystemTime::now());
            output.metadata.backend = self.name().to_owned();
            output.metadata.elapsed = time.started.elapsed();
            Ok(output)
        })
    }

    async fn dry_run(
        &self,
        endpoint: &HttpRequest,
        payload: Payload,
        context: RequestContext,
    ) -> Result<Estimate, Error> {
        if self.transport.native.is_none() {
            let message = "this server is not known to tell prices, and one that does not know the dry run would make the \
                           images and bill them; for a gateway under another address call `.native_url(..)`";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut request = HttpRequest::new(endpoint.method().clone(), endpoint.url().clone());
        request.url_mut().query_pairs_mut().append_pair("dryRun", "true");
        *request.headers_mut() = endpoint.headers().clone();
        self.transport.ask(&request, &payload, context.deadline, estimate::read).await
    }
}

/// When addresses stop working that were made at so many seconds since 1970, and came now. What is more than a day off is no
/// time of this answer: some servers give 0 or milliseconds.
fn expiry(created: Option<u64>, now: SystemTime) -> Option<SystemTime> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let created = created.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let off = |made: &SystemTime| now.duration_since(*made).unwrap_or_else(|error| error.duration());
    created.filter(|made| off(made) < DAY).unwrap_or(now).checked_add(ADDRESS_LIFETIME)
}

impl Backend for Remote {
    fn name(&self) -> &str {
        "remote"
    }

    fn identity(&self) -> String {
        self.transport.identity("remote")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            edit: true,
            mask: true,
            estimate: self.transport.native.is_some(),
            addresses: true,
            output_formats: vec![
                OutputFormat::Png,
                OutputFormat::Jpeg,
                OutputFormat::Gif,
                OutputFormat::Webp,
                OutputFormat::Avif,
            ],
        }
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        // Written here already, so that the future need not hold the spec.
        let asked = spec.options.response_format;
        let payload = fields::generate(spec).and_then(|fields| Payload::json(&fields));
        self.make(&self.generations, payload, asked, context.deadline)
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        let asked = spec.options.response_format;
        self.make(&self.edits, Edit::new(spec).map(Payload::edit), asked, context.deadline)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            match request {
                Request::Generate(spec) => {
                    self.dry_run(&self.generations, Payload::json(&fields::generate(spec)?)?, context).await
                }
                Request::Edit(spec) => self.dry_run(&self.edits, Payload::edit(Edit::new(spec)?), context).await,
            }
        })
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(download::fetch(&self.transport, address))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base_url", &clean::address(&self.transport.base)).finish_non_exhaustive()
    }
}
