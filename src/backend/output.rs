//! What a backend makes, and what is known of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER, SET_COOKIE};
use serde_json::{Map, Value};

use super::Cost;
use crate::images::{OutputFormat, Size};

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
/// `content-length`, `date` and `retry-after`, and only the names of the rest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    pub(crate) fn new(mut headers: HeaderMap) -> Self {
        // Few names are looked through faster than one is hashed.
        if headers.keys().any(|name| *name == SET_COOKIE) {
            headers.remove(SET_COOKIE);
        }
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
