//! The whole way from a prompt, or a prompt and a picture, to pictures.

use candle_core::{Device, Tensor};

use crate::config::{self, SchedulerConfig};
use crate::error::{Error, Result};
use crate::mmdit::Mmdit;
use crate::noise::Generator;
use crate::ops::Ops;
use crate::picture::Picture;
use crate::schedule::{Schedule, Step};
use crate::text::{Conditioning, TextEncoders, WithoutT5};
use crate::vae::Vae;
use crate::weights::{ModelFiles, Read, Weights};

/// Denoising steps where the request names none.
pub const DEFAULT_STEPS: u32 = 28;

/// Scale of classifier-free guidance where the request names none.
pub const DEFAULT_GUIDANCE: f32 = 4.5;

/// How far an edit moves away from its source where the request does not say, as in diffusers.
pub const DEFAULT_STRENGTH: f32 = 0.6;

/// How to load a model.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Threads to compute with; `None` takes all processors. The pictures do not depend on it.
    pub threads: Option<usize>,
    /// What stands in the place of T5's tokens where the folder has no T5 encoder.
    pub without_t5: WithoutT5,
    /// Which form of the operations to use; `None` takes the fastest for the device.
    pub ops: Option<Ops>,
}

/// A loaded Stable Diffusion 3.5 model.
#[derive(Debug)]
pub struct Pipeline {
    text: TextEncoders,
    denoiser: Mmdit,
    vae: Vae,
    schedule: SchedulerConfig,
    device: Device,
    threads: rayon::ThreadPool,
}

/// What to make. A field that is `None` takes the model's default.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Parameters {
    /// What the picture is to show.
    pub prompt: String,
    /// What it is not to show.
    pub negative_prompt: Option<String>,
    /// Pixels from left to right: a multiple of 16 for Stable Diffusion 3.5.
    pub width: Option<u32>,
    /// Pixels from top to bottom: a multiple of 16 for Stable Diffusion 3.5.
    pub height: Option<u32>,
    /// Denoising steps; [`DEFAULT_STEPS`].
    pub steps: Option<u32>,
    /// Scale of classifier-free guidance; [`DEFAULT_GUIDANCE`]. 1 turns it off.
    pub guidance: Option<f32>,
    /// How far an edit moves away from its source, above 0 to 1; [`DEFAULT_STRENGTH`]. Edit only.
    pub strength: Option<f32>,
    /// Where the noise of the first picture starts from; picture `i` uses `seed + i`.
    pub seed: u64,
    /// How many pictures to make; at least 1.
    pub count: u32,
    /// T5 tokens; 256, and never more than the model's tokenizer allows.
    pub t5_tokens: Option<usize>,
}

impl Parameters {
    /// One picture of `prompt`, from seed 0.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), count: 1, ..Self::default() }
    }
}

/// What has just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The prompt is being encoded.
    EncodingPrompt,
    /// A denoising step has ended.
    Step {
        /// Which picture, from 0.
        image: u32,
        /// The step that has ended, from 1.
        step: u32,
        /// How many there are.
        steps: u32,
    },
    /// A latent is being decoded.
    Decoding {
        /// Which picture, from 0.
        image: u32,
    },
}

/// How the caller follows and stops the work.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Asked before each transformer block: where it says true, the work ends with [`Error::Cancelled`].
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Called at each stage.
    pub progress: &'a (dyn Fn(Stage) + Sync),
}

impl Control<'_> {
    /// Neither follows nor stops.
    pub fn none() -> Self {
        Self { stop: &|| false, progress: &|_| {} }
    }

    fn check(&self) -> Result<()> {
        if (self.stop)() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Pictures, and what the caller should know of their making.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pictures {
    /// In the order of their seeds.
    pub pictures: Vec<Picture>,
    /// The seed of the first.
    pub seed: u64,
    /// How many denoising steps ran for each.
    pub steps: u32,
    /// Such as a prompt that was cut.
    pub warnings: Vec<String>,
}

/// Is shown latents while they are made.
type Observe<'a> = &'a (dyn Fn(&Tensor) + Sync);

/// The prompt's side of a run.
struct Guidance {
    conditional: Conditioning,
    /// Not needed where the scale is 1.
    unconditional: Option<Conditioning>,
    scale: f32,
}

impl Pipeline {
    /// Loads a model and checks that its parts fit together.
    ///
    /// # Errors
    /// Names the file, and where it applies the tensor, that is missing, damaged or of another model.
    pub fn load(files: &ModelFiles, options: &LoadOptions) -> Result<Self> {
        Self::load_with(files, options, Read::Values)
    }

    /// Checks what can be checked without reading the weights themselves: that every part is there, that no file is cut
    /// off, and that every tensor exists in the shape that its `config.json` calls for. Takes milliseconds.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn check(files: &ModelFiles) -> Result<()> {
        Self::load_with(files, &LoadOptions { threads: Some(1), ..LoadOptions::default() }, Read::Headers).map(|_| ())
    }

    fn load_with(files: &ModelFiles, options: &LoadOptions, read: Read) -> Result<Self> {
        let device = Device::Cpu;
        let ops = options.ops.unwrap_or(Ops::for_device(&device));
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|index| format!("lumenfall-{index}"))
            .build()
            .map_err(|error| Error::parameter("threads", format!("cannot be started: {error}; ask for fewer")))?;
        let schedule = config::scheduler(files)?;
        let denoiser_config = config::denoiser(files)?;
        let vae_config = config::vae(files)?;
        if vae_config.latent_channels != denoiser_config.in_channels {
            return Err(Error::malformed(
                files.path("vae/config.json"),
                format!(
                    "`latent_channels` is {}, but the denoiser takes {}; \
                     the parts are of different models: download them from one",
                    vae_config.latent_channels, denoiser_config.in_channels
                ),
            ));
        }
        threads
            .install(|| {
                let (joint, pooled) = (denoiser_config.joint_attention_dim, denoiser_config.pooled_projection_dim);
                let text = TextEncoders::load(files, joint, pooled, options.without_t5, read, &device, ops)?;
                let vae = Vae::load(
                    &Weights::open(files, "vae", "diffusion_pytorch_model", read, &device)?,
                    vae_config,
                    ops,
                )?;
                let weights = Weights::open(files, "transformer", "diffusion_pytorch_model", read, &device)?;
                let denoiser = Mmdit::load(weights, denoiser_config, ops)?;
                Ok((text, vae, denoiser))
            })
            .map(|(text, vae, denoiser)| Self { text, denoiser, vae, schedule, device, threads })
    }

    /// Width and height where the request names none.
    pub fn default_size(&self) -> u32 {
        (self.denoiser.config().sample_size * self.vae.config().downscale()) as u32
    }

    /// What both sides of a picture must be a multiple of.
    pub fn size_step(&self) -> u32 {
        (self.denoiser.config().patch_size * self.vae.config().downscale()) as u32
    }

    /// The longest side that the model's position table allows.
    pub fn max_side(&self) -> u32 {
        self.denoiser.config().pos_embed_max_size as u32 * self.size_step()
    }

    /// Makes pictures from a prompt.
    ///
    /// # Errors
    /// Where a parameter is out of its range, or the work is cancelled.
    pub fn generate(&self, parameters: &Parameters, control: Control<'_>) -> Result<Pictures> {
        self.generate_observed(parameters, control, &|_| {})
    }

    /// [`Self::generate`], with `observe` shown the latents before the first step and after each.
    pub(crate) fn generate_observed(
        &self,
        parameters: &Parameters,
        control: Control<'_>,
        observe: Observe<'_>,
    ) -> Result<Pictures> {
        if parameters.strength.is_some() {
            return Err(Error::parameter(
                "strength",
                "belongs to an edit; a picture made from a prompt alone has no source: leave it out",
            ));
        }
        let width = self.side("width", parameters.width.unwrap_or(self.default_size()))?;
        let height = self.side("height", parameters.height.unwrap_or(self.default_size()))?;
        let schedule = Schedule::new(&self.schedule, parameters.steps.unwrap_or(DEFAULT_STEPS))?;
        let shape = self.latent_shape(width, height);
        self.run(parameters, schedule, control, observe, |generator| self.noise(generator, shape))
    }

    /// Changes a picture after a prompt, as diffusers' image-to-image pipeline does it.
    ///
    /// The result has the request's size, or the source's rounded down to what the model allows.
    ///
    /// # Errors
    /// Where a parameter is out of its range, or the work is cancelled.
    pub fn edit(&self, source: &Picture, parameters: &Parameters, control: Control<'_>) -> Result<Pictures> {
        self.edit_observed(source, parameters, control, &|_| {})
    }

    /// [`Self::edit`], with `observe` shown the latents before the first step and after each.
    pub(crate) fn edit_observed(
        &self,
        source: &Picture,
        parameters: &Parameters,
        control: Control<'_>,
        observe: Observe<'_>,
    ) -> Result<Pictures> {
        let fitting = |side: u32| (side / self.size_step() * self.size_step()).max(self.size_step());
        let width = self.side("width", parameters.width.unwrap_or(fitting(source.width())))?;
        let height = self.side("height", parameters.height.unwrap_or(fitting(source.height())))?;
        let schedule = Schedule::new(&self.schedule, parameters.steps.unwrap_or(DEFAULT_STEPS))?
            .for_strength(parameters.strength.unwrap_or(DEFAULT_STRENGTH))?;
        let source = source.clone().resized(width, height)?.to_tensor(&self.device)?;
        let posterior = self.threads.install(|| self.vae.encode(&source, &|| control.check()))?;
        let shape = self.latent_shape(width, height);
        let sigma = f64::from(schedule.first_sigma());
        self.run(parameters, schedule, control, observe, |generator| {
            // One generator draws the latent first and the noise after it, as in diffusers.
            let latent = self.vae.normalize(&posterior.sample(&self.noise(generator, shape)?)?)?;
            let noise = self.noise(generator, shape)?;
            Ok(((noise * sigma)? + (latent * (1.0 - sigma))?)?)
        })
    }

    fn run(
        &self,
        parameters: &Parameters,
        schedule: Schedule,
        control: Control<'_>,
        observe: Observe<'_>,
        start: impl Fn(&mut Generator) -> Result<Tensor> + Sync,
    ) -> Result<Pictures> {
        if parameters.count == 0 {
            return Err(Error::parameter("n", "is 0; ask for at least 1 image"));
        }
        self.threads.install(|| {
            let mut warnings = Vec::new();
            let guidance = self.guidance(parameters, &mut warnings, control)?;
            let steps = schedule.steps();
            let mut pictures = Vec::new();
            for image in 0..parameters.count {
                let latent = start(&mut Generator::new(parameters.seed.wrapping_add(u64::from(image))))?;
                let latent = self.denoise(latent, &steps, &guidance, image, control, observe)?;
                (control.progress)(Stage::Decoding { image });
                pictures.push(Picture::from_tensor(&self.vae.decode(&latent, &|| control.check())?)?);
            }
            Ok(Pictures { pictures, seed: parameters.seed, steps: steps.len() as u32, warnings })
        })
    }

    fn guidance(&self, parameters: &Parameters, warnings: &mut Vec<String>, control: Control<'_>) -> Result<Guidance> {
        let scale = parameters.guidance.unwrap_or(DEFAULT_GUIDANCE);
        if !scale.is_finite() || scale < 0.0 {
            return Err(Error::parameter("guidance", format!("is {scale}; give 1 (off) or more, 4.5 is usual")));
        }
        (control.progress)(Stage::EncodingPrompt);
        let mut encode = |prompt: &str| self.text.encode(prompt, parameters.t5_tokens, warnings, &|| control.check());
        let conditional = encode(&parameters.prompt)?;
        let negative = parameters.negative_prompt.as_deref().unwrap_or("");
        let unconditional = if scale > 1.0 { Some(encode(negative)?) } else { None };
        if unconditional.is_none() && !negative.is_empty() {
            return Err(Error::parameter(
                "negative_prompt",
                format!("has no effect at a guidance of {scale}; raise `guidance` above 1"),
            ));
        }
        Ok(Guidance { conditional, unconditional, scale })
    }

    fn denoise(
        &self,
        mut latent: Tensor,
        steps: &[Step],
        guidance: &Guidance,
        image: u32,
        control: Control<'_>,
        observe: Observe<'_>,
    ) -> Result<Tensor> {
        observe(&latent);
        for (index, step) in steps.iter().enumerate() {
            let flow = self.flow(&latent, step.timestep, guidance, control)?;
            latent = (latent + (flow * f64::from(step.next - step.sigma))?)?;
            observe(&latent);
            (control.progress)(Stage::Step { image, step: index as u32 + 1, steps: steps.len() as u32 });
        }
        Ok(latent)
    }

    /// The flow after classifier-free guidance: `unconditional + scale·(conditional − unconditional)`.
    fn flow(&self, latent: &Tensor, timestep: f32, guidance: &Guidance, control: Control<'_>) -> Result<Tensor> {
        let predict = |conditioning: &Conditioning| {
            self.denoiser.forward(latent, timestep, &conditioning.context, &conditioning.pooled, &|| control.check())
        };
        let conditional = predict(&guidance.conditional)?;
        match &guidance.unconditional {
            Some(unconditional) => {
                let unconditional = predict(unconditional)?;
                Ok((&unconditional + ((conditional - &unconditional)? * f64::from(guidance.scale))?)?)
            }
            None => Ok(conditional),
        }
    }

    fn side(&self, parameter: &'static str, side: u32) -> Result<u32> {
        let (step, max) = (self.size_step(), self.max_side());
        if side == 0 || !side.is_multiple_of(step) || side > max {
            return Err(Error::parameter(
                parameter,
                format!("is {side} pixels; ask for a multiple of {step}, at most {max}"),
            ));
        }
        Ok(side)
    }

    /// `[channels, height, width]`
    fn latent_shape(&self, width: u32, height: u32) -> [usize; 3] {
        let downscale = self.vae.config().downscale();
        [self.denoiser.config().in_channels, height as usize / downscale, width as usize / downscale]
    }

    fn noise(&self, generator: &mut Generator, shape: [usize; 3]) -> Result<Tensor> {
        Ok(Tensor::from_vec(generator.normal(shape.iter().product()), &shape, &self.device)?)
    }
}
