//! Requests as plain data.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::serde_form::{json_text_in_binary_formats, seconds};
use super::{Content, ModelApi};
use crate::error::{Error, ErrorKind};
#[cfg(feature = "local")]
use crate::local::LocalOptions;
use crate::retry::RetryPolicy;
use crate::setters::setters;
use crate::timer;
use crate::values::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size};

/// A request of either mode.
///
/// Requests can be stored with serde, for example in a queue of jobs. This is the form in JSON, which later versions of
/// this crate will be able to read. Fields that are not set are omitted, and unknown fields are rejected by name:
///
/// ```
/// use lumenfall::backend::Request;
///
/// let stored = r#"{
///     "edit": {
///         "model": "stable-diffusion-3.5-medium",
///         "images": [{ "path": "source.png" }, { "bytes": "iVBORw0KGgo=" }],
///         "mask": { "path": "mask.png" },
///         "prompt": "add a starry night sky",
///         "options": {
///             "size": "1024x1024",
///             "output_format": "jpeg",
///             "output_compression": 80,
///             "n": 2,
///             "sampling": { "seed": 7, "strength": 0.6 },
///             "extra": { "safety_tolerance": 2 }
///         }
///     }
/// }"#;
/// let request: Request = serde_json::from_str(stored)?;
/// assert_eq!(request, serde_json::from_str(&serde_json::to_string(&request)?)?);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A text-to-image request has the key `generate` and no images. Timeouts, callbacks and other settings of a call are not
/// part of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Text to image.
    Generate(GenerateSpec),
    /// Image edit.
    Edit(EditSpec),
}

impl From<GenerateSpec> for Request {
    fn from(spec: GenerateSpec) -> Self {
        Self::Generate(spec)
    }
}

impl From<EditSpec> for Request {
    fn from(spec: EditSpec) -> Self {
        Self::Edit(spec)
    }
}

impl Request {
    /// Returns the slug of the model.
    pub fn model(&self) -> &str {
        match self {
            Self::Generate(spec) => &spec.model,
            Self::Edit(spec) => &spec.model,
        }
    }

    /// Returns the optional parameters.
    pub fn options(&self) -> &Options {
        match self {
            Self::Generate(spec) => &spec.options,
            Self::Edit(spec) => &spec.options,
        }
    }

    /// Returns the optional parameters, to modify them.
    pub fn options_mut(&mut self) -> &mut Options {
        match self {
            Self::Generate(spec) => &mut spec.options,
            Self::Edit(spec) => &mut spec.options,
        }
    }
}

/// The optional parameters, which both modes share.
///
/// A field that is `None` is not sent, so the service uses its default.
///
/// ```
/// use lumenfall::Sampling;
/// use lumenfall::backend::Options;
///
/// let options = Options::default().with_n(2).with_sampling(Sampling::default().with_seed(7));
/// assert_eq!((options.n, options.sampling.seed), (Some(2), Some(7)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The slug of the provider that the gateway must use, such as `fal` or `replicate`. By default the gateway chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The size in pixels or as an aspect ratio. A request with both `size` and `aspect_ratio` or `resolution` is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// The aspect ratio. Can be combined with `resolution`, but not with `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aspect_ratio: Option<AspectRatio>,
    /// The number of pixels. Can be combined with `aspect_ratio`, but not with `size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
    /// Whether the service returns URLs or bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// The file format of the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_format: Option<OutputFormat>,
    /// The compression level of a lossy `output_format`, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_compression: Option<u32>,
    /// The number of images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Your own identifier of the end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The parameters of the diffusion process.
    #[serde(skip_serializing_if = "Sampling::is_default")]
    pub sampling: Sampling,
    /// Options that only the [local backend](crate::local::Local) has.
    #[cfg(feature = "local")]
    #[serde(skip_serializing_if = "LocalOptions::is_default")]
    pub local: LocalOptions,
    /// Parameters that have no field here; they are sent unmodified.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

json_text_in_binary_formats!(Options);

impl Options {
    setters! {
        with_provider: provider = impl Into<String>,
        with_size: size = Size,
        with_aspect_ratio: aspect_ratio = AspectRatio,
        with_resolution: resolution = Resolution,
        with_response_format: response_format = ResponseFormat,
        with_output_format: output_format = OutputFormat,
        with_output_compression: output_compression = u32,
        with_n: n = u32,
        with_user: user = impl Into<String>,
    }

    /// Returns the parameters that determine the images.
    pub(crate) fn of_images(&self) -> Self {
        Self { user: None, response_format: None, ..self.clone() }
    }

    /// Sets [`sampling`](Self::sampling).
    #[must_use]
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Sets [`local`](Self::local).
    #[cfg(feature = "local")]
    #[must_use]
    pub fn with_local(mut self, local: LocalOptions) -> Self {
        self.local = local;
        self
    }

    /// Adds a parameter to [`extra`](Self::extra).
    #[must_use]
    pub fn with_extra(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }
}

/// A parameter of [`Options`] that is set.
#[derive(Debug)]
pub(crate) struct Parameter {
    /// The name of the field in [`Options`] or [`Sampling`]; errors name it.
    pub(crate) name: &'static str,
    /// The name in the OpenAI-compatible API.
    pub(crate) wire_name: &'static str,
    /// The JSON value; null for a number that is not finite.
    pub(crate) value: Value,
}

impl Options {
    /// Returns the parameters that are set, except `provider`, `local` and `extra`.
    ///
    /// This is the only list of the fields and their names in the API. It destructures without `..`, so a new field does
    /// not compile until it is added here, and every backend must then support it or reject it by name.
    pub(crate) fn parameters(&self) -> Vec<Parameter> {
        let Self {
            provider: _,
            size,
            aspect_ratio,
            resolution,
            response_format,
            output_format,
            output_compression,
            n,
            user,
            sampling,
            // `Capabilities::check` refuses them for all backends except the local one.
            #[cfg(feature = "local")]
                local: _,
            extra: _,
        } = self;
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
        let all = [
            ("size", "size", size.map(|size| size.to_string().into())),
            ("aspect_ratio", "aspect_ratio", aspect_ratio.map(|ratio| ratio.to_string().into())),
            ("resolution", "resolution", resolution.map(|resolution| resolution.to_string().into())),
            ("response_format", "response_format", response_format.map(<&str>::from).map(Value::from)),
            ("output_format", "output_format", output_format.map(<&str>::from).map(Value::from)),
            ("output_compression", "output_compression", output_compression.map(Value::from)),
            ("n", "n", n.map(Value::from)),
            ("user", "user", user.as_deref().map(Value::from)),
            ("seed", "seed", seed.map(Value::from)),
            ("steps", "num_inference_steps", steps.map(Value::from)),
            ("guidance", "guidance_scale", guidance.map(decimal)),
            ("negative_prompt", "negative_prompt", negative_prompt.as_deref().map(Value::from)),
            ("strength", "strength", strength.map(decimal)),
            ("skip_layer_guidance", "skip_layer_guidance", skip_layer_guidance.as_ref().map(|skip| json!(skip))),
        ];
        let set =
            |(name, wire_name, value): (_, _, Option<Value>)| value.map(|value| Parameter { name, wire_name, value });
        all.into_iter().filter_map(set).collect()
    }
}

/// Returns the shortest decimal that rounds to `value`: 0.1 instead of 0.10000000149, the result of widening to `f64`.
fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A text-to-image request as plain data.
///
/// ```
/// use lumenfall::backend::{GenerateSpec, Options};
///
/// let spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a lighthouse").with_options(Options::default().with_n(2));
/// assert_eq!(spec.options.n, Some(2));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GenerateSpec {
    /// The id of the model, such as `stable-diffusion-3.5-medium`.
    pub model: String,
    /// A description of the image.
    pub prompt: String,
    /// The optional parameters.
    #[serde(default)]
    pub options: Options,
}

/// An edit request as plain data.
///
/// ```
/// use lumenfall::Input;
/// use lumenfall::backend::EditSpec;
///
/// let spec = EditSpec::new("stable-diffusion-3.5-medium", Input::path("source.png")).with_prompt("add a starry night sky");
/// assert_eq!(spec.prompt.as_deref(), Some("add a starry night sky"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EditSpec {
    /// The id of the model, such as `stable-diffusion-3.5-medium`.
    pub model: String,
    /// The input images: at least one, unless the model's schema allows an edit without an image.
    #[serde(default)]
    pub images: Vec<Input>,
    /// A PNG image of the same size as the input. The edit changes only the pixels that are fully transparent in the mask.
    #[serde(default)]
    pub mask: Option<Input>,
    /// A description of the edited image.
    #[serde(default)]
    pub prompt: Option<String>,
    /// The optional parameters.
    #[serde(default)]
    pub options: Options,
}

/// The deadline, the progress callback and other settings of a call. To cancel it, drop its future, or use a
/// [`Cancellation`](super::Cancellation) with the request builder.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RequestContext {
    /// When the request must have ended, retries included. `None` means no deadline besides the backend's own timeouts.
    pub deadline: Option<Instant>,
    /// Called with each progress event, on any thread. It must return quickly.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    /// Headers that a remote backend adds to all API requests of this call, but not to downloads. They replace the backend's own
    /// headers of the same name. Their values are secrets: messages and `Debug` do not contain them.
    ///
    /// A [`Fallback`](crate::layers::Fallback) passes them to each of its backends. They are not part of the key of a cache.
    pub headers: Vec<(String, String)>,
    /// Replaces, for all requests of this call, the retry policy of a remote backend and of the layer [`Retry`](crate::layers::Retry).
    pub retry: Option<RetryPolicy>,
    /// The facts of the model's schema that a remote backend needs. The request builders set it.
    pub model: ModelApi,
}

impl RequestContext {
    /// Calls the progress callback, if there is one.
    pub fn report(&self, progress: Progress) {
        if let Some(callback) = &self.progress {
            callback(progress);
        }
    }

    /// Checks that the deadline has not passed. Backends call it before they start.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if deadline <= tokio::time::Instant::now().into_std() => {
                Err(Error::new(ErrorKind::Timeout, "the deadline passed before the request was sent"))
            }
            _ => Ok(()),
        }
    }
}

/// Runs `future` until `deadline`, and returns the error `late` if it has not ended by then.
pub(crate) async fn before<T>(
    deadline: Option<Instant>,
    late: impl FnOnce() -> Error,
    future: impl Future<Output = T>,
) -> Result<T, Error> {
    match deadline {
        Some(deadline) => {
            timer::check()?;
            tokio::time::timeout_at(deadline.into(), future).await.map_err(|_| late())
        }
        None => Ok(future.await),
    }
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("deadline", &self.deadline)
            .field("progress", &self.progress.is_some())
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("retry", &self.retry)
            .field("model", &self.model)
            .finish()
    }
}

/// A progress event of a request. Its serde form has the key `event`, such as `{"event": "step", "image": 0, …}`.
/// [`Retrying`](Self::Retrying) has the form `{"event": "retrying", "attempt": 2, "wait_seconds": 0.5}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Progress {
    /// The request waits in the provider's queue.
    Queued {
        /// The number of requests ahead in the queue, if the provider reports it.
        position: Option<u32>,
    },
    /// The provider has started the request.
    Running,
    /// An attempt to send the request failed, and another one follows. Repeated downloads and polls are not reported.
    Retrying {
        /// The number of the attempt that follows, from 2.
        attempt: u32,
        /// The time until it starts.
        #[serde(rename = "wait_seconds", serialize_with = "seconds::serialize")]
        wait: Duration,
    },
    /// A preview of an image, which the service sends while it generates the image. Servers with the OpenAI images API do so
    /// if the extra parameters `stream` and `partial_images` ask for it. The local backend sends small previews if the local option
    /// `preview_every` asks for it, each after the [`Step`](Self::Step) that it belongs to.
    PartialImage {
        /// The number of the preview, from 0.
        index: u32,
        /// The encoded preview. The serde form omits it.
        #[serde(skip)]
        content: Content,
    },
    /// The local backend loads the model's weights.
    Loading,
    /// The local backend encodes the prompt.
    EncodingPrompt,
    /// A denoising step has ended.
    Step {
        /// The index of the image, from 0.
        image: u32,
        /// The number of the step, from 1.
        step: u32,
        /// The total number of steps of this image.
        steps: u32,
        /// The noise level after the step, 0 after the last step.
        sigma: f32,
        /// An estimate of the time until the request ends, from the duration of its steps so far.
        #[serde(rename = "remaining_seconds", serialize_with = "seconds::serialize")]
        remaining: Duration,
    },
    /// The latents are decoded to pixels.
    Decoding {
        /// The index of the image, from 0.
        image: u32,
    },
}
