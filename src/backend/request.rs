//! What a backend is asked for.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Backend, BoxFuture, Output};
use crate::error::{Error, ErrorKind};
use crate::images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size};

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

impl Options {
    /// Whether nothing is set. No `..`: a field that is added must be asked for, too.
    // Called more than once for each request, by code that is cold: it comes from memory once.
    #[inline(never)]
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            provider,
            size,
            aspect_ratio,
            resolution,
            response_format,
            output_format,
            output_compression,
            n,
            user,
            sampling,
            extra,
        } = self;
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
        let set = provider.is_some()
            | size.is_some()
            | aspect_ratio.is_some()
            | resolution.is_some()
            | response_format.is_some()
            | output_format.is_some()
            | output_compression.is_some()
            | n.is_some()
            | user.is_some()
            | seed.is_some()
            | steps.is_some()
            | guidance.is_some()
            | negative_prompt.is_some()
            | strength.is_some()
            | skip_layer_guidance.is_some()
            | !extra.is_empty();
        !set
    }
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
