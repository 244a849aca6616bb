//! The result of a request: images and metadata.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::serde_form::{seconds, unix_seconds};
use super::{Cost, Options};
use crate::error::Bills;
use crate::values::{OutputFormat, Size};

/// The result of a request: images and metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// The images, in the order in which the backend returned them.
    pub images: Vec<ImageData>,
    /// Information about the request and its cost.
    pub metadata: Box<Metadata>,
}

impl Output {
    /// Returns an output of `images` and `metadata`.
    pub fn new(images: Vec<ImageData>, metadata: Metadata) -> Self {
        Self { images, metadata: Box::new(metadata) }
    }
}

/// One image of an [`Output`].
///
/// ```
/// use lumenfall::backend::{ImageData, Metadata, Output};
///
/// let png = bytes::Bytes::from_static(b"\x89PNG...");
/// let image = ImageData::new(png).with_seed(7);
/// let output = Output::new(vec![image], Metadata::default());
/// assert_eq!(output.images[0].seed, Some(7));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageData {
    /// The encoded image or its URL.
    pub content: Content,
    /// The prompt that the service used instead of the requested one.
    pub revised_prompt: Option<String>,
    /// The seed of this image.
    pub seed: Option<u64>,
}

impl ImageData {
    /// Returns an image without a revised prompt and seed. `content` is a [`Content`] or the bytes of an encoded image.
    pub fn new(content: impl Into<Content>) -> Self {
        Self { content: content.into(), revised_prompt: None, seed: None }
    }

    /// Sets the prompt that the service used instead of the requested one.
    #[must_use]
    pub fn with_revised_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.revised_prompt = Some(prompt.into());
        self
    }

    /// Sets the seed of this image.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// An encoded image or its URL. URLs may contain a signature, so `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// The encoded image.
    Bytes(Bytes),
    /// A temporary URL.
    Url(String),
    /// The temporary URL of an image that was requested as bytes but could not be downloaded. Another download may succeed.
    Unfetched(String),
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Url(_) => f.write_str("Url(…)"),
            Self::Unfetched(_) => f.write_str("Unfetched(…)"),
        }
    }
}

/// Information about a request that succeeded. A field is `None` if the backend does not report it.
///
/// It can be stored with serde, for example in a file next to the image, and later versions of this crate will be able to read
/// that. The headers and the service's own metadata are omitted, because they may contain secrets. `elapsed` is in seconds,
/// and `urls_expire` in seconds since 1970.
///
/// The `parameters` and the prompt are enough to repeat a request to a local model:
///
/// ```
/// use lumenfall::backend::Metadata;
///
/// let stored = r#"{ "backend": "local", "parameters": { "size": "1024x1024", "sampling": { "seed": 7, "steps": 28 } } }"#;
/// let metadata: Metadata = serde_json::from_str(stored)?;
/// let parameters = metadata.parameters.unwrap_or_default();
/// assert_eq!((parameters.sampling.seed, parameters.sampling.steps), (Some(7), Some(28)));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Metadata {
    /// The name of the backend.
    pub backend: String,
    /// The provider that the gateway chose, such as `fal`.
    pub provider: Option<String>,
    /// The id of the model that generated the images.
    pub model: Option<String>,
    /// A hash that identifies the files of a local model, wherever they are. It covers the configuration, the tokenizers,
    /// and the length, the header and samples of the weights, but not all weights: a different hash means different files,
    /// but the same hash does not prove that they are equal.
    pub fingerprint: Option<String>,
    /// The parameters that were used. A local model reports all, including its defaults and the seed of the first image; other
    /// backends report what they sent, without [`Options::user`] and [`Options::response_format`].
    pub parameters: Option<Options>,
    /// The cost of the successful attempt.
    pub cost: Option<Cost>,
    /// The number of earlier attempts that may have been billed although they returned no image.
    pub lost_bills: u32,
    /// The service's id of the request, for support enquiries.
    pub request_id: Option<String>,
    /// The number of attempts, the successful one included; 0 if no request was sent.
    pub attempts: u32,
    /// How often a gateway between the client and the service has retried the request by itself, if it reports that
    /// (LiteLLM, in `x-litellm-attempted-retries`). These retries are not in `attempts`.
    pub gateway_retries: Option<u32>,
    /// The HTTP headers of the response; empty if the backend does not use HTTP.
    #[serde(skip)]
    pub headers: Headers,
    /// The size of the images.
    pub size: Option<Size>,
    /// The file format that the service reports. [`Image::format`](crate::Image::format) detects the actual format.
    pub output_format: Option<OutputFormat>,
    /// The fields of the service's response, unmodified, without the images: `usage`, `metadata` and all others.
    #[serde(skip)]
    pub service: ServiceMetadata,
    /// When the images were generated, in seconds since 1970.
    pub created: Option<u64>,
    /// When the URLs expire according to the service's documentation. [`Image::expires_at`](crate::Image::expires_at) also
    /// reads the time from a signed URL.
    #[serde(with = "unix_seconds")]
    pub urls_expire: Option<SystemTime>,
    /// The name and version of the program that computed the images.
    pub generator: Option<String>,
    /// The number of denoising steps that were computed. For an edit it is lower than the parameter `steps`, unless its strength
    /// is 1. It is that of the image with the fewest if a local request ended at its deadline.
    pub steps: Option<u32>,
    /// The number of forward passes of all images of a local request that left out transformer blocks, if its
    /// `first_block_cache` is set.
    pub skipped_forwards: Option<u32>,
    /// The duration of the request.
    #[serde(with = "seconds")]
    pub elapsed: Duration,
    /// Problems that did not fail the request, such as a truncated prompt.
    pub warnings: Vec<String>,
}

impl Metadata {
    /// Returns the bills of all attempts, the successful one included: for an error that loses its images.
    pub(crate) fn bills(&self) -> Bills {
        Bills { attempts: self.lost_bills.saturating_add(1), made_images: true }
    }
}

/// The fields of a service's response. The values may be secret, so `Debug` shows only the names of the fields.
#[derive(Clone, Default, PartialEq)]
pub struct ServiceMetadata(pub Map<String, Value>);

impl fmt::Debug for ServiceMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The HTTP headers of a response, without cookies.
///
/// Headers may contain secrets, such as signed URLs. `Debug` shows the values of `content-type`, `content-length`, `date`
/// and `retry-after`, and only the names of all others.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(HeaderMap);

impl Headers {
    pub(crate) fn new(mut headers: HeaderMap) -> Self {
        headers.remove(SET_COOKIE);
        Self(headers)
    }

    /// Returns the first value of the header `name`, which is not case-sensitive. Returns `None` if the header is missing
    /// or its value is not ASCII text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    /// Returns the names (in lower case) and values of all headers whose value is ASCII text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = [CONTENT_TYPE, CONTENT_LENGTH, DATE, RETRY_AFTER];
        let shown = |(name, value): (&HeaderName, &HeaderValue)| match value.to_str() {
            Ok(value) if public.contains(name) => (name.clone(), value.to_owned()),
            _ => (name.clone(), "…".to_owned()),
        };
        f.debug_map().entries(self.0.iter().map(shown)).finish()
    }
}
