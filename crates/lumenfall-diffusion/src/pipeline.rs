//! The pipeline: text to image, and image to image.

mod clock;
#[cfg(feature = "gpu")]
mod gpu_memory;
mod guided;
mod mask;
mod memory;
mod preview;
mod prompts;
mod queue;
mod request;
mod run;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::checkpoint::scheduler::SchedulerConfig;
use crate::checkpoint::{Checkpoint, Part, tiny_decoder};
use crate::error::{Error, Result};
use crate::image::RgbImage;
use crate::lora::Loras;
use crate::models::{Mmdit, TINY_SCALE, TinyDecoder, Vae};
use crate::parameters::{Callbacks, Decoder, LoadOptions, Parameters, PipelineOutput, Progress};
use crate::placement::{MemoryBudget, Phase, Placement, Plan, Target};
use crate::sampling::{NoiseStream, combine};
use crate::tensor::Tensor;
use crate::text::{StoredPrompts, TextEncoders};
use crate::user_cache;
use crate::weights::ModelFiles;
use clock::Clock;
use guided::GuidedDenoiser;
pub use mask::Mask;
use preview::{Previewer, Projection};
use queue::Queue;
use request::{ModelFacts, Request};
use run::{Area, Run};
pub use summary::ModelSummary;

/// The largest number of threads. Starting more takes seconds.
const MAX_THREADS: usize = 1024;

/// A Stable Diffusion 3.5 model. Its weights are read when a request needs them.
///
/// The requests of several threads run one after another. A callback must not send a request to the same pipeline, which would wait for
/// itself.
#[derive(Debug)]
pub struct Pipeline {
    text: TextEncoders,
    denoiser: Mmdit,
    vae: Vae,
    tiny_decoder: Option<TinyDecoder>,
    scheduler: SchedulerConfig,
    threads: rayon::ThreadPool,
    memory: MemoryBudget,
    #[cfg(feature = "gpu")]
    gpu_memory: MemoryBudget,
    /// Where all parts but T5 compute.
    placement: Placement,
    t5_placement: Placement,
    t5_on_cpu: bool,
    /// Why the CPU computes although a GPU was preferred.
    fallback: Option<String>,
    /// The projection of previews, after the first request with previews.
    projection: Mutex<Option<Arc<Projection>>>,
    loras: Loras,
    queue: Queue,
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
        let mut pipeline = Self::new(Checkpoint::open(files)?, options)?;
        if let Some(cache) = &options.prompt_cache {
            let stored = StoredPrompts::open(cache.clone(), pipeline.prompt_key(files, options)?)?;
            pipeline.text.use_stored(stored);
        } else if pipeline.text.are_large()
            && let Some(folder) = user_cache::folder("prompts")
        {
            pipeline.store_empty_prompt(files, options, folder);
        }
        Ok(pipeline)
    }

    /// Stores the empty prompt in a folder, if the times at which the files were changed are known.
    pub(crate) fn store_empty_prompt(&mut self, files: &ModelFiles, options: &LoadOptions, folder: PathBuf) {
        // The user is not asked, so the key must be certain. The fingerprint contains only samples of the weights.
        if let (Ok(key), Ok(Some(times))) = (self.prompt_key(files, options), files.modified(&options.loras)) {
            self.text.use_stored(StoredPrompts::of_empty_prompt(folder, format!("{key} {times:?}")));
        }
    }

    /// Returns everything that encoded prompts depend on besides their texts and how they are read.
    fn prompt_key(&self, files: &ModelFiles, options: &LoadOptions) -> Result<String> {
        // They do not depend on the decoder.
        let model = files.fingerprint_with(&LoadOptions { tiny_decoder: None, ..options.clone() })?;
        let (target, t5_target) = (self.placement.target(), self.t5_placement.target());
        Ok(format!("{model} {target:?} {t5_target:?} {:?}", options.without_t5))
    }

    pub(crate) fn new(mut checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self> {
        if options.threads.is_some_and(|threads| threads > MAX_THREADS) {
            let reason = format!("is {}; use at most {MAX_THREADS}", options.threads.unwrap_or(0));
            return Err(Error::parameter("threads", reason));
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|index| format!("lumenfall-{index}"))
            .build()
            .map_err(|error| Error::parameter("threads", format!("cannot be started: {error}; use fewer")))?;
        let loras = Loras::open(&options.loras, &mut checkpoint)?;
        let (placement, t5_placement) = (Placement::default(), Placement::default());
        let Checkpoint { denoiser, vae, clip_l, clip_g, t5, scheduler } = checkpoint.on(&placement, &t5_placement);
        let joint_width = denoiser.config.joint_attention_dim;
        let text = TextEncoders::open(clip_l, clip_g, t5, joint_width, options.without_t5)?;
        let (vae, denoiser) = (Vae::open(vae)?, Mmdit::open(denoiser)?);
        loras.check_attached()?;
        let latent_channels = vae.config().latent_channels;
        let tiny_decoder = match &options.tiny_decoder {
            Some(path) => {
                check_scale(path, vae.config().downscale())?;
                let Part { weights, config } = tiny_decoder::open(path, latent_channels)?;
                Some(TinyDecoder::open(Part { weights: weights.on(&placement), config })?)
            }
            None => None,
        };
        let mut pipeline = Self {
            text,
            denoiser,
            vae,
            tiny_decoder,
            scheduler,
            threads,
            memory: options.memory,
            #[cfg(feature = "gpu")]
            gpu_memory: options.gpu_memory,
            placement,
            t5_placement,
            t5_on_cpu: options.t5_on_cpu,
            fallback: None,
            projection: Mutex::default(),
            loras,
            queue: Queue::default(),
        };
        let target = pipeline.open_device(options)?;
        pipeline.place(target);
        Ok(pipeline)
    }

    #[cfg(feature = "gpu")]
    fn open_device(&mut self, options: &LoadOptions) -> Result<Target> {
        // Whether a GPU has enough memory depends on the model.
        let (target, fallback) = options.device.open(self.least_gpu_bytes()?, self.gpu_memory)?;
        self.fallback = fallback;
        Ok(target)
    }

    #[cfg(not(feature = "gpu"))]
    fn open_device(&mut self, options: &LoadOptions) -> Result<Target> {
        options.device.open()
    }

    /// Sets where the layers compute that are read from now on.
    fn place(&self, target: Target) {
        if !self.t5_on_cpu {
            // Activations of T5 exceed the range of f16. Scaled to it, the small ones would lose digits.
            self.t5_placement.set(target.with_full_precision());
        }
        self.placement.set(target);
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
        let request = self.request(parameters, (width, height), None)?;
        let _turn = self.queue.enter(&|| callbacks.check_cancelled())?;
        let plan = self.plan(&request.parameters, false, callbacks.has_previews())?;
        self.run(&request, &plan, None, callbacks, |image, stream| Ok(request.initial_noise(image, stream)))
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
        let (width, height) = (self.supported(source.width()), self.supported(source.height()));
        let max = self.max_side();
        if (parameters.width.is_none() && width > max) || (parameters.height.is_none() && height > max) {
            let (width, height) = (source.width(), source.height());
            let reason =
                format!("is {width}x{height} pixels, as the result would be; set a size of at most {max}x{max}");
            return Err(Error::parameter("image", reason));
        }
        let width = self.side("width", parameters.width.unwrap_or(width))?;
        let height = self.side("height", parameters.height.unwrap_or(height))?;
        let request = self.request(parameters, (width, height), Some(strength))?;
        let _turn = self.queue.enter(&|| callbacks.check_cancelled())?;
        let plan = self.plan(&request.parameters, true, callbacks.has_previews())?;
        self.enter(Phase::Encode, &plan);
        let source = source.resized(width, height)?.to_tensor()?;
        let posterior = self.install(|| self.vae.encode(&source, &|| callbacks.check_cancelled()))?;
        let sigma = request.initial_sigma();
        self.run(&request, &plan, None, callbacks, |image, stream| {
            // As in diffusers, one generator first draws the latent and then the noise.
            let noise = Tensor::new(stream.normal(request.latent_len()), &request.shape)?;
            let latent = self.vae.normalize(posterior.sample(&noise)?).into_values();
            let noise = request.initial_noise(image, stream);
            Ok(combine(&noise, sigma, &latent, 1.0 - sigma))
        })
    }

    /// Returns what draws previews, if they are requested.
    fn previewer(&self, plan: &Plan, callbacks: Callbacks<'_>) -> Result<Option<Previewer<'_>>> {
        if !callbacks.has_previews() {
            return Ok(None);
        }
        Ok(Some(match &self.tiny_decoder {
            Some(decoder) => Previewer::Decoder(decoder),
            None => Previewer::Projection(self.projection(plan, callbacks)?),
        }))
    }

    /// Returns the projection of previews. The first request with previews fits it.
    fn projection(&self, plan: &Plan, callbacks: Callbacks<'_>) -> Result<Arc<Projection>> {
        let mut projection = self.projection.lock().unwrap_or_else(PoisonError::into_inner);
        match &*projection {
            Some(projection) => Ok(Arc::clone(projection)),
            None => {
                self.enter(Phase::Encode, plan);
                let fitted = Projection::fit(&self.vae, &|| callbacks.check_cancelled())?;
                Ok(Arc::clone(projection.insert(Arc::new(fitted))))
            }
        }
    }

    /// Redraws a part of an image according to a prompt (inpainting).
    ///
    /// The result has the size of `source`. Pixels where the mask is transparent are drawn, those where it is opaque equal the source
    /// exactly, and those in between are blended. With random numbers of a seed and `strength`, the drawn part begins like that of
    /// [`edit`](Self::edit). Width and height in `parameters` must be left out or be those of `source`. If the model does not support
    /// that size, the part is drawn at the next smaller one and scaled.
    ///
    /// # Errors
    /// Returns [`Error::Parameter`] if the mask has another size than the source or no transparent pixel, or if a parameter is out of
    /// range, and [`Error::Cancelled`] if the caller cancels.
    pub fn inpaint(
        &self,
        source: &RgbImage,
        mask: &Mask,
        strength: f32,
        parameters: &Parameters,
        callbacks: Callbacks<'_>,
    ) -> Result<PipelineOutput> {
        let (width, height) = (source.width(), source.height());
        mask.check(source)?;
        for (name, requested, size) in [("width", parameters.width, width), ("height", parameters.height, height)] {
            if let Some(requested) = requested.filter(|requested| *requested != size) {
                let reason = format!(
                    "is {requested}, but with a mask the result has the source's size, {width}x{height}; leave it out"
                );
                return Err(Error::parameter(name, reason));
            }
        }
        if self.supported(width.max(height)) > self.max_side() {
            let reason = format!(
                "is {width}x{height} pixels, but the sides of an edit with a mask have at most {}; scale the source and the mask \
                 down",
                self.max_side()
            );
            return Err(Error::parameter("image", reason));
        }
        let size = (self.side("width", self.supported(width))?, self.side("height", self.supported(height))?);
        let request = self.request(parameters, size, Some(strength))?;
        let _turn = self.queue.enter(&|| callbacks.check_cancelled())?;
        let plan = self.plan(&request.parameters, true, callbacks.has_previews())?;
        self.enter(Phase::Encode, &plan);
        let tensor = source.resized(size.0, size.1)?.to_tensor()?;
        let posterior = self.install(|| self.vae.encode(&tensor, &|| callbacks.check_cancelled()))?;
        let [_, rows, columns] = request.shape;
        let latent = self.vae.normalize(posterior.mean).into_values();
        let area = Area { source: latent, drawn: mask.drawn(columns, rows) };
        let sigma = request.initial_sigma();
        let mut output = self.run(&request, &plan, Some(&area), callbacks, |image, stream| {
            let noise = request.initial_noise(image, stream);
            Ok(combine(&noise, sigma, &area.source, 1.0 - sigma))
        })?;
        for image in &mut output.images {
            *image = mask.composite(source, &image.resized(width, height)?)?;
        }
        // The size of the computation is not that of the request.
        (output.parameters.width, output.parameters.height) = (parameters.width, parameters.height);
        Ok(output)
    }

    /// Returns the normalized mean of the latent of an image.
    #[cfg(test)]
    pub(crate) fn encoded_mean(&self, image: &Tensor) -> Vec<f32> {
        let posterior = self.vae.encode(image, &|| Ok(())).unwrap();
        self.vae.normalize(posterior.mean).into_values()
    }

    /// Rounds a side down to a supported one.
    fn supported(&self, side: u32) -> u32 {
        (side - side % self.side_multiple()).max(self.side_multiple())
    }

    /// Checks the parameters of a request.
    pub(crate) fn request(
        &self,
        parameters: &Parameters,
        (width, height): (u32, u32),
        strength: Option<f32>,
    ) -> Result<Request> {
        let config = self.denoiser.config();
        let model = ModelFacts {
            scheduler: &self.scheduler,
            latent: self.latent_shape(width, height),
            patch: config.patch_size,
            blocks: config.num_layers,
        };
        if parameters.decoder == Decoder::Tiny && self.tiny_decoder.is_none() {
            let reason = "is `tiny`, but the model was opened without a tiny decoder; name its file with \
                          `LocalBuilder::tiny_decoder` or `LoadOptions::tiny_decoder`";
            return Err(Error::parameter("decoder", reason));
        }
        let loras = self.loras.strengths(&parameters.loras)?;
        let parameters = Parameters { width: Some(width), height: Some(height), loras, ..parameters.clone() };
        Request::new(parameters, strength, &model)
    }

    /// Computes the images of a request. `initial_latent` gets the index of the image and its random numbers. `area` is the part
    /// of the image to draw, if the rest is kept.
    fn run(
        &self,
        request: &Request,
        plan: &Plan,
        area: Option<&Area>,
        callbacks: Callbacks<'_>,
        initial_latent: impl Fn(u32, &mut NoiseStream) -> Result<Vec<f32>> + Sync,
    ) -> Result<PipelineOutput> {
        self.loras.activate(&request.parameters.loras);
        let output = self.install(|| {
            let mut warnings = Vec::from_iter(self.fallback.clone());
            self.enter(Phase::Text, plan);
            let prompts = self.encode(request, &mut warnings, callbacks)?;
            let denoiser = GuidedDenoiser::new(&self.denoiser, &prompts, &request.steps, callbacks)?;
            let previewer = self.previewer(plan, callbacks)?;
            let mut clock = Clock::start(request);
            let (mut images, mut steps, mut skipped_forwards) = (Vec::new(), Vec::new(), Vec::new());
            for image in 0..request.parameters.count {
                let mut stream = request.noise_stream(image)?;
                let latent = initial_latent(image, &mut stream)?;
                self.enter(Phase::Denoise, plan);
                let run = Run { denoiser: &denoiser, request, area, previewer: previewer.as_ref(), image, callbacks };
                let denoised = run.denoise(latent, stream, &mut clock)?;
                let completed = denoised.steps;
                if completed < request.steps.len() {
                    let all = request.steps.len();
                    warnings
                        .push(format!("image {image} is that of step {completed} of {all}, because of the deadline"));
                }
                callbacks.progress(Progress::Decoding { image });
                self.enter(Phase::Decode, plan);
                let latent = Tensor::new(denoised.latent, &request.shape)?;
                images.push(RgbImage::from_tensor(&self.decode(&latent, request.parameters.decoder, callbacks)?)?);
                steps.push(completed as u32);
                skipped_forwards.push(denoised.skipped_forwards as u32);
                clock.advance(1, 0);
                let (images, count) = (image + 1, request.parameters.count);
                if images < count
                    && (completed < request.steps.len()
                        || callbacks.stop_at.is_some_and(|stop_at| stop_at <= Instant::now()))
                {
                    warnings
                        .push(format!("the deadline passed after {images} of {count} images; the others are missing"));
                    break;
                }
            }
            let (parameters, planned_steps) = (request.parameters.clone(), request.steps.len() as u32);
            Ok(PipelineOutput { images, parameters, steps, planned_steps, skipped_forwards, warnings })
        });
        #[cfg(feature = "gpu")]
        self.free_buffers();
        output
    }

    fn decode(&self, latent: &Tensor, decoder: Decoder, callbacks: Callbacks<'_>) -> Result<Tensor> {
        let check_cancelled = || callbacks.check_cancelled();
        match (decoder, &self.tiny_decoder) {
            (Decoder::Tiny, Some(decoder)) => decoder.decode(latent, &check_cancelled),
            _ => self.vae.decode(latent, &check_cancelled),
        }
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

/// Checks that images are as many times larger than their latents as those of a tiny decoder.
fn check_scale(path: &Path, scale: usize) -> Result<()> {
    if scale == TINY_SCALE {
        return Ok(());
    }
    let reason =
        format!("enlarges latents {TINY_SCALE} times, but the model's autoencoder {scale} times; leave it out");
    Err(Error::malformed(path, reason))
}
