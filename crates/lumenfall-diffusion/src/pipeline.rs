//! The pipeline: text to image, and image to image.

mod memory;
mod summary;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::scheduler::SchedulerConfig;
use crate::error::{Error, Result};
use crate::guided::GuidedDenoiser;
use crate::image::RgbImage;
use crate::models::{Conditioning, Mmdit, Vae};
use crate::parameters::{Callbacks, DEFAULT_GUIDANCE, LoadOptions, Parameters, PipelineOutput, Progress};
use crate::placement::{MemoryBudget, Phase, Plan};
use crate::sampling::{Generator, Scheduler, Step};
use crate::tensor::Tensor;
use crate::text::TextEncoders;
use crate::weights::ModelFiles;
pub use summary::{ModelSummary, PartSummary};

/// A Stable Diffusion 3.5 model. Its weights are read when a request needs them.
#[derive(Debug)]
pub struct Pipeline {
    text: TextEncoders,
    denoiser: Mmdit,
    vae: Vae,
    scheduler: SchedulerConfig,
    threads: rayon::ThreadPool,
    memory: MemoryBudget,
    /// Why the CPU computes although a GPU was preferred.
    fallback: Option<String>,
}

/// The sizes of the images that a model can generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sizes {
    /// The number of pixels that width and height must be a multiple of.
    pub multiple: u32,
    /// The maximum width and height in pixels.
    pub max: u32,
}

impl Pipeline {
    /// Opens a model. It checks that every file exists and is complete, and that the files contain every tensor in the shape
    /// that `config.json` requires. It takes milliseconds, because it reads no weights.
    ///
    /// # Errors
    /// Returns an error that names the file, and the tensor if there is one, that is missing, corrupt or part of another
    /// model.
    pub fn open(files: &ModelFiles, options: &LoadOptions) -> Result<Self> {
        Self::new(Checkpoint::open(files)?, options)
    }

    pub(crate) fn new(checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|index| format!("lumenfall-{index}"))
            .build()
            .map_err(|error| Error::parameter("threads", format!("cannot be started: {error}; use fewer")))?;
        let (target, fallback) = options.device.open()?;
        let Checkpoint { denoiser, vae, clip_l, clip_g, t5, scheduler } = checkpoint.on(&target);
        let joint_width = denoiser.config.joint_attention_dim;
        let text = TextEncoders::open(clip_l, clip_g, t5, joint_width, options.without_t5)?;
        let (vae, denoiser) = (Vae::open(vae)?, Mmdit::open(denoiser)?);
        Ok(Self { text, denoiser, vae, scheduler, threads, memory: options.memory, fallback })
    }

    /// Returns the sizes of the images that the model can generate.
    pub fn sizes(&self) -> Sizes {
        Sizes { multiple: self.side_multiple(), max: self.max_side() }
    }

    /// Returns the default width and height in pixels.
    pub fn default_side(&self) -> u32 {
        (self.denoiser.config().sample_size * self.vae.config().downscale()) as u32
    }

    /// Returns the number of pixels that width and height must be a multiple of.
    pub fn side_multiple(&self) -> u32 {
        (self.denoiser.config().patch_size * self.vae.config().downscale()) as u32
    }

    /// Returns the maximum width and height in pixels.
    pub fn max_side(&self) -> u32 {
        self.denoiser.config().pos_embed_max_size as u32 * self.side_multiple()
    }

    /// Generates images from a prompt.
    ///
    /// # Errors
    /// Returns [`Error::Parameter`] if a parameter is out of range, and [`Error::Cancelled`] if the caller cancels.
    pub fn generate(&self, parameters: &Parameters, callbacks: Callbacks<'_>) -> Result<PipelineOutput> {
        let width = self.side("width", parameters.width.unwrap_or(self.default_side()))?;
        let height = self.side("height", parameters.height.unwrap_or(self.default_side()))?;
        let scheduler = Scheduler::new(&self.scheduler, parameters.steps())?;
        let shape = self.latent_shape(width, height);
        let used = used(parameters, width, height);
        let plan = self.plan(&used, false)?;
        self.run(used, &plan, &scheduler, callbacks, |generator| noise(generator, shape))
    }

    /// Edits an image according to a prompt, like diffusers' image-to-image pipeline.
    ///
    /// `strength`, above 0 and up to 1, determines how far the result may differ from `source`
    /// ([`DEFAULT_STRENGTH`](crate::DEFAULT_STRENGTH)). Without a width or height in `parameters`, the result has the
    /// source's size, rounded down to a supported one.
    ///
    /// # Errors
    /// Returns [`Error::Parameter`] if a parameter is out of range, and [`Error::Cancelled`] if the caller cancels.
    pub fn edit(
        &self,
        source: &RgbImage,
        strength: f32,
        parameters: &Parameters,
        callbacks: Callbacks<'_>,
    ) -> Result<PipelineOutput> {
        let supported = |side: u32| (side - side % self.side_multiple()).max(self.side_multiple());
        let width = self.side("width", parameters.width.unwrap_or(supported(source.width())))?;
        let height = self.side("height", parameters.height.unwrap_or(supported(source.height())))?;
        let scheduler = Scheduler::new(&self.scheduler, parameters.steps())?.for_strength(strength)?;
        let used = used(parameters, width, height);
        let plan = self.plan(&used, true)?;
        self.enter(Phase::Encode, &plan);
        let source = source.resized(width, height)?.to_tensor()?;
        let posterior = self.install(|| self.vae.encode(&source, &|| callbacks.check_cancelled()))?;
        let shape = self.latent_shape(width, height);
        let sigma = scheduler.initial_sigma();
        self.run(used, &plan, &scheduler, callbacks, |generator| {
            // As in diffusers, one generator first draws the latent and then the noise.
            let latent = self.vae.normalize(posterior.sample(&noise(generator, shape)?)?);
            noise(generator, shape)?.zip_with(&latent, |noise, latent| noise * sigma + latent * (1.0 - sigma))
        })
    }

    fn run(
        &self,
        parameters: Parameters,
        plan: &Plan,
        scheduler: &Scheduler,
        callbacks: Callbacks<'_>,
        initial_latent: impl Fn(&mut Generator) -> Result<Tensor> + Sync,
    ) -> Result<PipelineOutput> {
        if parameters.count == 0 {
            return Err(Error::parameter("n", "is 0; request at least 1 image"));
        }
        self.install(|| {
            let mut warnings = Vec::from_iter(self.fallback.clone());
            self.enter(Phase::Text, plan);
            let prompts = self.encode(&parameters, &mut warnings, callbacks)?;
            let steps = scheduler.steps();
            let timesteps = steps.iter().map(|step| step.timestep).collect();
            let denoiser = GuidedDenoiser::new(&self.denoiser, &prompts, parameters.guidance(), timesteps, callbacks)?;
            let mut images = Vec::new();
            for image in 0..parameters.count {
                let latent = initial_latent(&mut Generator::new(parameters.seed.wrapping_add(u64::from(image))))?;
                self.enter(Phase::Denoise, plan);
                let latent = denoise(&denoiser, latent, &steps, image, callbacks)?;
                callbacks.progress(Progress::Decoding { image });
                self.enter(Phase::Decode, plan);
                images.push(RgbImage::from_tensor(&self.vae.decode(&latent, &|| callbacks.check_cancelled())?)?);
            }
            Ok(PipelineOutput { images, parameters, steps: steps.len() as u32, warnings })
        })
    }

    /// Runs a job in the pipeline's thread pool.
    fn install<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        if rayon::current_thread_index().is_none() {
            return self.threads.install(job);
        }
        // A thread of another pool would run further tasks of its pool while it waits. If these call the pipeline, too, they
        // nest until the stack overflows. A thread of its own lets the caller only wait.
        let result = std::thread::scope(|scope| scope.spawn(|| self.threads.install(job)).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Encodes the prompt and, with guidance, the negative prompt.
    fn encode(
        &self,
        parameters: &Parameters,
        warnings: &mut Vec<String>,
        callbacks: Callbacks<'_>,
    ) -> Result<Vec<Conditioning>> {
        let scale = parameters.guidance();
        if !scale.is_finite() || scale < 0.0 {
            let reason = format!("is {scale}; use 1 (no guidance) or more ({DEFAULT_GUIDANCE} is a good default)");
            return Err(Error::parameter("guidance", reason));
        }
        let negative = parameters.negative_prompt.as_deref().unwrap_or("");
        if scale <= 1.0 && !negative.is_empty() {
            let reason = format!("has no effect with a guidance of {scale}; set `guidance` to a value above 1");
            return Err(Error::parameter("negative_prompt", reason));
        }
        callbacks.progress(Progress::EncodingPrompt);
        let prompts = [parameters.prompt.as_str(), negative];
        let (prompts, _) = prompts.split_at(if scale > 1.0 { 2 } else { 1 });
        let encoded = self.text.encode(prompts, parameters.t5_tokens, &|| callbacks.check_cancelled())?;
        Ok(encoded
            .into_iter()
            .map(|prompt| {
                warnings.extend(prompt.warnings);
                prompt.conditioning
            })
            .collect())
    }

    fn side(&self, parameter: &'static str, side: u32) -> Result<u32> {
        let (multiple, max) = (self.side_multiple(), self.max_side());
        if side == 0 || !side.is_multiple_of(multiple) || side > max {
            let reason = format!("is {side} pixels; use a multiple of {multiple} up to {max}");
            return Err(Error::parameter(parameter, reason));
        }
        Ok(side)
    }

    /// `[channels, height, width]`
    fn latent_shape(&self, width: u32, height: u32) -> [usize; 3] {
        let downscale = self.vae.config().downscale();
        [self.denoiser.config().in_channels, height as usize / downscale, width as usize / downscale]
    }
}

fn denoise(
    denoiser: &GuidedDenoiser<'_>,
    mut latent: Tensor,
    steps: &[Step],
    image: u32,
    callbacks: Callbacks<'_>,
) -> Result<Tensor> {
    callbacks.latent(&latent);
    for (index, step) in steps.iter().enumerate() {
        let velocity = denoiser.velocity(&latent, index)?;
        latent = latent.zip_with(&velocity, |latent, velocity| latent + velocity * (step.next_sigma - step.sigma))?;
        callbacks.latent(&latent);
        callbacks.progress(Progress::Step { image, step: index as u32 + 1, steps: steps.len() as u32 });
    }
    Ok(latent)
}

fn noise(generator: &mut Generator, shape: [usize; 3]) -> Result<Tensor> {
    Tensor::new(generator.normal(shape.iter().product()), &shape)
}

/// Returns the parameters of a request with its defaults.
fn used(parameters: &Parameters, width: u32, height: u32) -> Parameters {
    Parameters {
        width: Some(width),
        height: Some(height),
        steps: Some(parameters.steps()),
        guidance: Some(parameters.guidance()),
        ..parameters.clone()
    }
}
