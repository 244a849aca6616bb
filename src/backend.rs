//! The trait that every way of making images implements, and the plain data that crosses it.
//!
//! The typed builders of [`crate::images`] end in a [`GenerateSpec`] or an [`EditSpec`]; a
//! [`Backend`] turns it into an [`Output`]. Whoever wants to choose parameters in a loop or under
//! an `if` fills in the spec directly and asks its `validate()` for the same verdict that the
//! builders give at compile time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER, SET_COOKIE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size};

/// The future that a [`Backend`] returns. Dropping it stops the work.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A file that arrives piece by piece.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A way of making images: a remote service, this machine, or a layer around another backend.
pub trait Backend: Send + Sync + fmt::Debug {
    /// A short name for messages and metadata, such as `remote` or `local`.
    fn name(&self) -> &str;

    /// What tells its answers from those of another backend, for a cache: two backends of one identity give the same
    /// answer to the same seeded request. It holds no secret. The name, unless a backend knows better.
    fn identity(&self) -> String {
        self.name().to_owned()
    }

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes images from a prompt.
    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Changes images.
    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Tells what a request would cost, without making anything.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>>;

    /// Fetches an image from an address that this backend answered with.
    ///
    /// A backend whose [`Capabilities::addresses`] is true implements this, with its own configured
    /// HTTP client and without its key. The others keep this default, which refuses.
    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let _ = address;
        let refusal = format!("the backend `{}` answers with bytes, so it has no addresses to fetch", self.name());
        Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, refusal)) })
    }
}

/// A shared backend is a backend.
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        (**self).generate(spec, context)
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        (**self).edit(spec, context)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        (**self).estimate(request, context)
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        (**self).fetch(address)
    }
}

/// What a backend can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Text to image.
    pub generate: bool,
    /// Image edit.
    pub edit: bool,
    /// A mask in an edit.
    pub mask: bool,
    /// Whether [`Backend::estimate`] answers.
    pub estimate: bool,
    /// Whether an answer can hold addresses (otherwise it always holds bytes).
    pub addresses: bool,
    /// The file formats it can write.
    pub output_formats: Vec<OutputFormat>,
}

impl Capabilities {
    /// No capability at all, to start from.
    pub fn none() -> Self {
        Self {
            generate: false,
            edit: false,
            mask: false,
            estimate: false,
            addresses: false,
            output_formats: Vec::new(),
        }
    }
}

/// A request in either mode.
#[derive(Clone, Debug)]
pub enum Request {
    /// Text to image.
    Generate(GenerateSpec),
    /// Image edit.
    Edit(EditSpec),
}

impl Request {
    /// Has `backend` do it.
    pub fn send<'a, B: Backend + ?Sized>(
        self,
        backend: &'a B,
        context: RequestContext,
    ) -> BoxFuture<'a, Result<Output, Error>> {
        match self {
            Self::Generate(spec) => backend.generate(spec, context),
            Self::Edit(spec) => backend.edit(spec, context),
        }
    }

    /// What is not required.
    pub fn options(&self) -> &Options {
        match self {
            Self::Generate(spec) => &spec.options,
            Self::Edit(spec) => &spec.options,
        }
    }

    /// What is not required, to change it.
    pub fn options_mut(&mut self) -> &mut Options {
        match self {
            Self::Generate(spec) => &mut spec.options,
            Self::Edit(spec) => &mut spec.options,
        }
    }
}

/// What both modes have in common.
///
/// A field that is `None` is left to the service's default and not sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The provider to pin, by its slug (`fal`, `replicate`); `None` lets the gateway choose.
    pub provider: Option<String>,
    /// Pixels or an aspect ratio. Overrides `aspect_ratio` and `resolution`.
    pub size: Option<Size>,
    /// Shape of the output, independent of its scale.
    pub aspect_ratio: Option<AspectRatio>,
    /// Scale of the output, independent of its shape.
    pub resolution: Option<Resolution>,
    /// Address or bytes.
    pub response_format: Option<ResponseFormat>,
    /// File format of the images.
    pub output_format: Option<OutputFormat>,
    /// Compression level of a lossy format, 0 to 100.
    pub output_compression: Option<u32>,
    /// How many images to make.
    pub n: Option<u32>,
    /// The caller's own name for the end user.
    pub user: Option<String>,
    /// The controls of the diffusion process.
    pub sampling: Sampling,
    /// Every other parameter, sent as it is.
    pub extra: Map<String, Value>,
}

/// Text to image as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerateSpec {
    /// The model's id, such as `stable-diffusion-3.5-medium`.
    pub model: String,
    /// What the image is to show.
    pub prompt: String,
    /// Everything that is not required.
    #[serde(flatten)]
    pub options: Options,
}

/// Image edit as plain data.
#[derive(Clone, Debug)]
pub struct EditSpec {
    /// The model's id, such as `stable-diffusion-3.5-medium`.
    pub model: String,
    /// The image or images to change; at least one.
    pub images: Vec<Input>,
    /// A PNG of the same size whose fully transparent pixels mark what may change.
    pub mask: Option<Input>,
    /// How the image is to change.
    pub prompt: Option<String>,
    /// Everything that is not required.
    pub options: Options,
}

/// What travels beside a request: when to give up, and whom to tell of progress.
///
/// There is no cancel token: dropping the future that a backend returned stops the work.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RequestContext {
    /// When the whole call, retries included, must have ended.
    pub deadline: Option<Instant>,
    /// Called for each step of the work, from whatever thread does it. It must return quickly.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

impl RequestContext {
    /// Whether there is still time, for a backend to ask before it begins.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => {
                Err(Error::new(ErrorKind::Timeout, "the deadline had passed before the work began"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("deadline", &self.deadline)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

/// How far a request has come.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// The request waits for its turn at a provider.
    Queued {
        /// How many are before it, where the provider tells.
        position: Option<u32>,
    },
    /// A provider works on the request.
    Running,
    /// The model's weights are being read.
    Loading,
    /// The prompt is being encoded.
    EncodingPrompt,
    /// A denoising step has ended.
    Step {
        /// Which of the images, from 0.
        image: u32,
        /// The step that has ended, from 1.
        step: u32,
        /// How many steps there are.
        steps: u32,
    },
    /// The latents are being turned into pixels.
    Decoding {
        /// Which of the images, from 0.
        image: u32,
    },
}

/// The images and what is known of their making.
#[derive(Clone, Debug)]
pub struct Output {
    /// The images, in the order of their making; never fewer than the service delivered.
    pub images: Vec<ImageData>,
    /// What is known of their making. Boxed, because it is large and an output is handed on many times.
    pub metadata: Box<Metadata>,
}

impl Output {
    /// The images and what is known of their making.
    pub fn new(images: Vec<ImageData>, metadata: Metadata) -> Self {
        Self { images, metadata: Box::new(metadata) }
    }

    /// Adds what earlier tries made, and what they left at these addresses: it is paid for, too.
    pub(crate) fn add_unfetched(&mut self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            let warning = format!("{} images of earlier tries are still at their addresses", addresses.len());
            self.metadata.warnings.push(warning);
        }
        let image = |address| ImageData { content: Content::Unfetched(address), revised_prompt: None, seed: None };
        self.images.extend(addresses.into_iter().map(image));
    }
}

/// One image as a backend delivers it.
#[derive(Clone, Debug)]
pub struct ImageData {
    /// The image itself, or where it lies.
    pub content: Content,
    /// The prompt that the service used instead of the caller's.
    pub revised_prompt: Option<String>,
    /// The seed that made this image.
    pub seed: Option<u64>,
}

/// Where an image is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The encoded file itself.
    Bytes(Bytes),
    /// A temporary address. It may carry a signature, so it is not printed.
    Address(String),
    /// An address from which the bytes that were asked for could not be fetched. It may work later.
    Unfetched(String),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Address(_) => f.write_str("Address(…)"),
            Self::Unfetched(_) => f.write_str("Unfetched(…)"),
        }
    }
}

/// What is known of a request's making.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Metadata {
    /// The backend that made the images.
    pub backend: String,
    /// The provider that the gateway chose, such as `fal`.
    pub provider: Option<String>,
    /// The model that was executed.
    pub model: Option<String>,
    /// What it cost, where the service tells; without the tries of [`lost_bills`](Self::lost_bills).
    pub cost: Option<Cost>,
    /// How many tries before this success may have been billed although their images were lost.
    pub lost_bills: u32,
    /// The service's name for the request.
    pub request_id: Option<String>,
    /// The answer's HTTP headers; empty where there was no HTTP.
    pub headers: Headers,
    /// The size that the service says the images have.
    pub size: Option<Size>,
    /// The file format that the service says the images have; their own bytes know better.
    pub output_format: Option<OutputFormat>,
    /// What the service itself says of the making, as it came: what has no field here has no documented form. Null where it
    /// says nothing.
    pub service: Value,
    /// When the service made the images, in seconds since 1970.
    pub created: Option<u64>,
    /// When the addresses of the images stop working, by the service's documentation. An address that is signed
    /// knows better: [`Image::expires_at`](crate::Image::expires_at).
    pub addresses_expire: Option<SystemTime>,
    /// How many denoising steps ran.
    pub steps: Option<u32>,
    /// How long the call took.
    pub elapsed: Duration,
    /// What the caller should know although the request succeeded, such as a prompt that was cut.
    pub warnings: Vec<String>,
}

/// Of what the service says only the names: metadata gets printed, and what it holds is not known.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            provider,
            model,
            cost,
            lost_bills,
            request_id,
            headers,
            size,
            output_format,
            service,
            created,
            addresses_expire,
            steps,
            elapsed,
            warnings,
        } = self;
        let service: Vec<_> = service.as_object().into_iter().flat_map(Map::keys).collect();
        f.debug_struct("Metadata")
            .field("backend", backend)
            .field("provider", provider)
            .field("model", model)
            .field("cost", cost)
            .field("lost_bills", lost_bills)
            .field("request_id", request_id)
            .field("headers", headers)
            .field("size", size)
            .field("output_format", output_format)
            .field("service", &service)
            .field("created", created)
            .field("addresses_expire", addresses_expire)
            .field("steps", steps)
            .field("elapsed", elapsed)
            .field("warnings", warnings)
            .finish()
    }
}

/// The HTTP headers of an answer, without its cookies: those are secrets of the session, and metadata gets printed.
///
/// Any other can hold a secret, too, such as a signed address. So `Debug` shows the values of `content-type`,
/// `content-length`, `date`, `retry-after`, `x-request-id` and the gateway's own (`x-lumenfall-…`), and only the names
/// of the rest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    pub(crate) fn new(mut headers: HeaderMap) -> Self {
        headers.remove(SET_COOKIE);
        Self(headers)
    }

    /// The first header of that name, whatever its case, if it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    /// All headers that are text; names in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }
}

fn is_harmless(name: &HeaderName) -> bool {
    [CONTENT_TYPE, CONTENT_LENGTH, DATE, RETRY_AFTER].contains(name)
        || name == "x-request-id"
        || name.as_str().starts_with("x-lumenfall-")
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in &self.0 {
            match value.to_str() {
                Ok(value) if is_harmless(name) => map.entry(&name.as_str(), &value),
                _ => map.entry(&name.as_str(), &format_args!("…")),
            };
        }
        map.finish()
    }
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount, in units of `currency`.
    pub amount: f64,
    /// The currency's three letters, in upper case.
    pub currency: String,
}

impl Cost {
    /// What is free costs nothing in any currency; this says so in USD.
    pub fn nothing() -> Self {
        Self { amount: 0.0, currency: "USD".into() }
    }
}

/// What a request would cost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// The whole cost.
    pub total: Cost,
    /// The provider it was estimated for.
    pub provider: Option<String>,
    /// The model it was estimated for.
    pub model: Option<String>,
    /// What the total is made of, where the service tells.
    pub components: Vec<EstimateComponent>,
}

/// A part of an [`Estimate`]. What the service does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EstimateComponent {
    /// What is paid for, such as `output`.
    pub kind: Option<String>,
    /// What it is counted in, such as `megapixels`.
    pub metric: Option<String>,
    /// How much of it there is.
    pub quantity: Option<f64>,
    /// How much of it is billed, where a provider rounds up.
    pub billable_quantity: Option<f64>,
    /// What one costs.
    pub unit_price: Option<Cost>,
    /// What the part costs.
    pub total: Option<Cost>,
}

impl Estimate {
    /// An estimate of `total`.
    pub fn new(total: Cost) -> Self {
        Self { total, provider: None, model: None, components: Vec::new() }
    }
}
