//! The inputs of the pipeline, its callbacks and its output.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::lora::LoraFile;
use crate::placement::MemoryBudget;
use crate::sampling::{Guidance, Noise, Sampler, ScheduleOptions};
use crate::text::{PromptCache, TextOptions, WithoutT5};

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
    /// The memory of the GPU that may be used.
    pub gpu_memory: MemoryBudget,
    /// Whether T5 computes on the CPU, also if the other parts compute on a GPU.
    pub t5_on_cpu: bool,
    /// The LoRAs of the model. Their strengths may differ from request to request.
    pub loras: Vec<LoraFile>,
    /// A folder with encoded prompts, so that the text encoders are not read for prompts that it contains. Default: only the empty prompt
    /// is stored, in the user's cache folder, and only if T5 is larger than 1 GiB.
    pub prompt_cache: Option<PromptCache>,
    /// A safetensors file with the decoder of TAESD3, a tiny autoencoder: that of diffusers (`diffusion_pytorch_model.safetensors`),
    /// or that of the author and of ComfyUI (`taesd3_decoder.safetensors`). It draws previews at full resolution, and images with
    /// [`Decoder::Tiny`]. TAEF1, the tiny autoencoder of FLUX, has the same shapes, so it is not recognised; its images are wrong.
    pub tiny_decoder: Option<PathBuf>,
}

/// The decoder that converts the last latent to an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decoder {
    /// The decoder of the model's autoencoder.
    #[default]
    Vae,
    /// The tiny decoder of [`LoadOptions::tiny_decoder`], which is much faster and loses details.
    Tiny,
}

/// The parameters of a request. A field that is `None` has the model's default.
///
/// ```
/// use lumenfall_diffusion::{Guidance, Parameters, Sampler, Schedule};
///
/// let mut parameters = Parameters::new("a lighthouse at dusk");
/// parameters.sampler = Some(Sampler::Dpmpp2m);
/// parameters.schedule.schedule = Some(Schedule::Karras);
/// parameters.guidance = Guidance::new(5.0);
/// ```
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
    /// The number of denoising steps. Default: [`DEFAULT_STEPS`], or the number of sigmas of
    /// [`Schedule::Sigmas`](crate::Schedule::Sigmas).
    pub steps: Option<u32>,
    /// The sampler. Default: that of the model's `scheduler_config.json`, Euler for Stable Diffusion 3.5.
    pub sampler: Option<Sampler>,
    /// The noise levels of the steps.
    pub schedule: ScheduleOptions,
    /// Guidance. A scale of 1 switches it off; each step then runs the model once.
    pub guidance: Guidance,
    /// The random numbers that a seed stands for.
    pub noise: Noise,
    /// The initial latents in place of those of the seeds, as `latents` of diffusers: for each image, `channels * height / 8 *
    /// width / 8` values in this order. An edit uses them as the noise that it adds to the source.
    pub latents: Option<Vec<f32>>,
    /// The threshold of first-block caching, above 0 and up to 1. Default: no caching.
    ///
    /// While the first transformer block changes the image tokens almost as in the last step that was computed completely, the other
    /// blocks are left out, and their changes of that step are added. The threshold is the relative change of the first block's result
    /// up to which this happens: a larger one is faster, and the image differs more from that without caching. It is the threshold of
    /// `FirstBlockCacheConfig` in diffusers, and applies to each forward pass of a step separately.
    pub first_block_cache: Option<f32>,
    /// The decoder of the images.
    pub decoder: Decoder,
    /// The seed of the first image. Image `i` uses `seed + i`.
    pub seed: u64,
    /// The number of images, at least 1.
    pub count: u32,
    /// How the text encoders read the prompts.
    pub text: TextOptions,
    /// The number of T5 tokens, from 1 to 512. Default: 256, or the tokenizer's maximum if that is smaller.
    pub t5_tokens: Option<usize>,
    /// The strengths of LoRAs, by their names. The others have the strengths in [`LoraFile::strength`].
    ///
    /// The requests of a pipeline run one after another.
    pub loras: BTreeMap<String, f32>,
}

impl Parameters {
    /// Returns parameters for one image of `prompt` with seed 0.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), count: 1, ..Self::default() }
    }
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        /// The noise level after the step, 0 after the last step.
        sigma: f32,
        /// An estimate of the time until the request ends, from the duration of its steps so far.
        remaining: Duration,
    },
    /// The pipeline starts to decode a latent.
    Decoding {
        /// The index of the image, from 0.
        image: u32,
    },
}

/// A preview of an image.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Preview<'a> {
    /// The index of the image, from 0.
    pub index: u32,
    /// The number of completed steps, from 1.
    pub step: u32,
    /// The preview, with a pixel for each 8x8 pixels of the image, or of its size with [`LoadOptions::tiny_decoder`].
    pub image: &'a RgbImage,
}

/// Functions that the pipeline calls while it computes.
#[derive(Clone, Copy)]
pub struct Callbacks<'a> {
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
    on_progress: &'a (dyn Fn(Progress) + Sync),
    /// When a request must end with what it has computed so far.
    pub(crate) stop_at: Option<Instant>,
    previews: Option<Previews<'a>>,
    on_latent: &'a (dyn Fn(&[f32]) + Sync),
}

#[derive(Clone, Copy)]
struct Previews<'a> {
    every: u32,
    on_preview: &'a (dyn Fn(Preview<'_>) + Sync),
}

impl<'a> Callbacks<'a> {
    /// Creates callbacks.
    ///
    /// The pipeline calls `is_cancelled` before each transformer block and returns [`Error::Cancelled`] once it returns
    /// true. It reports its progress to `on_progress`.
    pub fn new(is_cancelled: &'a (dyn Fn() -> bool + Sync), on_progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self { is_cancelled, on_progress, stop_at: None, previews: None, on_latent: &|_| {} }
    }

    /// Returns callbacks that ignore the progress and never cancel.
    pub fn none() -> Self {
        Self::new(&|| false, &|_| {})
    }

    /// Reports a preview after every `every` steps, except the last step.
    ///
    /// A preview shows the image that the model predicted in a step. With [`LoadOptions::tiny_decoder`], it is decoded by the tiny
    /// decoder. Otherwise it is a linear projection, which is fitted to the model's autoencoder when the first request needs it. That
    /// takes about as long as encoding an image of 336x336 pixels.
    #[must_use]
    pub fn with_previews(self, every: u32, on_preview: &'a (dyn Fn(Preview<'_>) + Sync)) -> Self {
        Self { previews: Some(Previews { every, on_preview }), ..self }
    }

    /// Ends the request at about this time with the best images so far.
    ///
    /// After each step, it is estimated whether the next step and the decoding would end in time. If not, the result is the image
    /// that the model predicted in this step. At least one step of the first image is computed, so a request can end later. Images
    /// that have not been started are left out. [`PipelineOutput::steps`] has the number of steps of each image.
    #[must_use]
    pub fn with_deadline(self, stop_at: Instant) -> Self {
        Self { stop_at: Some(stop_at), ..self }
    }

    /// Sets a function that receives the initial latent and the latent after each step.
    pub(crate) fn with_latents(self, on_latent: &'a (dyn Fn(&[f32]) + Sync)) -> Self {
        Self { on_latent, ..self }
    }

    /// Returns the function that gets a preview after a step.
    pub(crate) fn preview_after(&self, step: usize) -> Option<&'a (dyn Fn(Preview<'_>) + Sync)> {
        let Previews { every, on_preview } = self.previews?;
        (every > 0 && step.is_multiple_of(every as usize)).then_some(on_preview)
    }

    pub(crate) fn has_previews(&self) -> bool {
        self.previews.is_some()
    }

    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if (self.is_cancelled)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    pub(crate) fn progress(&self, progress: Progress) {
        (self.on_progress)(progress);
    }

    pub(crate) fn latent(&self, latent: &[f32]) {
        (self.on_latent)(latent);
    }
}

/// The output of [`Pipeline::generate`](crate::Pipeline::generate) and [`Pipeline::edit`](crate::Pipeline::edit).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PipelineOutput {
    /// The images in the order of their seeds.
    pub images: Vec<RgbImage>,
    /// The parameters that were used: those of the request, with the size, steps and sampler that it left out.
    pub parameters: Parameters,
    /// The number of denoising steps that were computed for each image: fewer than requested if an edit's strength is below 1, or
    /// if the request ended at its [deadline](Callbacks::with_deadline).
    pub steps: Vec<u32>,
    /// The number of steps of an image that did not end at a deadline.
    pub planned_steps: u32,
    /// The number of forward passes of each image that left out blocks because of [`Parameters::first_block_cache`].
    pub skipped_forwards: Vec<u32>,
    /// Problems that did not stop the request, such as a truncated prompt.
    pub warnings: Vec<String>,
}
