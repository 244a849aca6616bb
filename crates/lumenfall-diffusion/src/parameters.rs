//! The inputs of the pipeline, its callbacks and its output.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::placement::MemoryBudget;
use crate::tensor::Tensor;
use crate::text::WithoutT5;

/// The default number of denoising steps.
pub const DEFAULT_STEPS: u32 = 28;

/// The default scale of classifier-free guidance.
pub const DEFAULT_GUIDANCE: f32 = 4.5;

/// The default strength of an edit, as in diffusers.
pub const DEFAULT_STRENGTH: f32 = 0.6;

/// Options for [`Pipeline::open`](crate::Pipeline::open).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The device to compute on.
    pub device: Device,
    /// The number of threads to compute with. Default: one per CPU. The images do not depend on it.
    pub threads: Option<usize>,
    /// The replacement for T5's output if the model has no T5 encoder.
    pub without_t5: WithoutT5,
    /// The memory that may be used.
    pub memory: MemoryBudget,
}

/// The parameters of a request. A field that is `None` has the model's default.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Parameters {
    /// A description of the image.
    pub prompt: String,
    /// A description of what the image must not show. Requires a guidance above 1.
    pub negative_prompt: Option<String>,
    /// The width in pixels, a multiple of 16 for Stable Diffusion 3.5.
    pub width: Option<u32>,
    /// The height in pixels, a multiple of 16 for Stable Diffusion 3.5.
    pub height: Option<u32>,
    /// The number of denoising steps. Default: [`DEFAULT_STEPS`].
    pub steps: Option<u32>,
    /// The scale of classifier-free guidance. Default: [`DEFAULT_GUIDANCE`]. 1 switches guidance off.
    pub guidance: Option<f32>,
    /// The seed of the first image. Image `i` uses `seed + i`.
    pub seed: u64,
    /// The number of images, at least 1.
    pub count: u32,
    /// The number of T5 tokens. Default: 256, or the tokenizer's maximum if that is smaller.
    pub t5_tokens: Option<usize>,
}

impl Parameters {
    /// Returns parameters for one image of `prompt` with seed 0.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), count: 1, ..Self::default() }
    }

    /// Returns the number of steps, or its default.
    pub(crate) fn steps(&self) -> u32 {
        self.steps.unwrap_or(DEFAULT_STEPS)
    }

    /// Returns the scale of guidance, or its default.
    pub(crate) fn guidance(&self) -> f32 {
        self.guidance.unwrap_or(DEFAULT_GUIDANCE)
    }
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The pipeline starts to encode the prompt.
    EncodingPrompt,
    /// A denoising step is complete.
    Step {
        /// The index of the image, from 0.
        image: u32,
        /// The number of completed steps, from 1.
        step: u32,
        /// The total number of steps.
        steps: u32,
    },
    /// The pipeline starts to decode a latent.
    Decoding {
        /// The index of the image, from 0.
        image: u32,
    },
}

/// Functions that the pipeline calls while it computes.
#[derive(Clone, Copy)]
pub struct Callbacks<'a> {
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
    on_progress: &'a (dyn Fn(Progress) + Sync),
    on_latent: &'a (dyn Fn(&Tensor) + Sync),
}

impl<'a> Callbacks<'a> {
    /// Creates callbacks.
    ///
    /// The pipeline calls `is_cancelled` before each transformer block and returns [`Error::Cancelled`] once it returns
    /// true. It reports its progress to `on_progress`.
    pub fn new(is_cancelled: &'a (dyn Fn() -> bool + Sync), on_progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self { is_cancelled, on_progress, on_latent: &|_| {} }
    }

    /// Returns callbacks that ignore the progress and never cancel.
    pub fn none() -> Self {
        Self::new(&|| false, &|_| {})
    }

    /// Sets a function that receives the initial latent and the latent after each step.
    #[cfg(test)]
    pub(crate) fn with_latents(self, on_latent: &'a (dyn Fn(&Tensor) + Sync)) -> Self {
        Self { on_latent, ..self }
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if (self.is_cancelled)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn progress(&self, progress: Progress) {
        (self.on_progress)(progress);
    }

    pub(crate) fn latent(&self, latent: &Tensor) {
        (self.on_latent)(latent);
    }
}

/// The output of [`Pipeline::generate`](crate::Pipeline::generate) and [`Pipeline::edit`](crate::Pipeline::edit).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineOutput {
    /// The images in the order of their seeds.
    pub images: Vec<RgbImage>,
    /// The parameters that were used: those of the request, with the size, steps and guidance that it left out.
    pub parameters: Parameters,
    /// The number of denoising steps that were computed for each image: fewer than requested if an edit's strength is below 1.
    pub steps: u32,
    /// Problems that did not stop the request, such as a truncated prompt.
    pub warnings: Vec<String>,
}
