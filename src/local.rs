//! A Stable Diffusion 3.5 model that runs on this machine.

mod builder;
#[cfg(feature = "hub")]
mod hub;
mod model;
mod options;
mod recipe;
mod settings;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use lumenfall_diffusion as diffusion;
use lumenfall_diffusion::LoadOptions;
use lumenfall_diffusion::{
    Callbacks, DEFAULT_STRENGTH, FileFormat, Mask, ModelFiles, Pipeline, PipelineOutput, Preview, RgbImage,
};
pub use lumenfall_diffusion::{
    CudaCard, Decoder, Device, DynamicShift, GpuChoice, GuidanceMethod, LongPrompts, MemoryBudget, ModelSummary, Noise,
    PartKind, PartSummary, PromptCache, PromptWeights, Sampler, Schedule, Shift, SkipLayers, SkipWindow, TimeShift,
    WithoutT5,
};
#[cfg(feature = "gpu")]
#[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
pub use lumenfall_diffusion::{GpuInfo, GpuKind};

use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, Cost, EditSpec, Estimate, GenerateSpec, Output, Progress,
    Request, RequestContext, before, no_urls,
};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;
use crate::images::typed::check;
pub use builder::LocalBuilder;
#[cfg(feature = "hub")]
#[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
pub use hub::{HubBuilder, HubProgress};
use model::Model;
use options::LocalRequest;
pub use recipe::Recipe;
pub use settings::{AtDeadline, Latents, LocalOptions};
use worker::Worker;

/// A backend that runs a Stable Diffusion 3.5 model on this machine.
///
/// It computes one request at a time, on a dedicated thread and with all CPUs, so it never blocks the async runtime. A request
/// that has to wait for others reports [`Progress::Queued`]. The progress callback is called by the task that awaits the
/// request, so it can itself wait for another request.
///
/// Dropping the future of a request stops the computation before the next transformer block. Weights are read when a
/// request first needs them, and stay in memory as far as it suffices.
///
/// Images are always returned as bytes, even if the request asks for URLs, and cost nothing.
#[derive(Debug)]
pub struct Local {
    model: Arc<Model>,
    /// The id of the model in requests.
    id: String,
    /// Whether files contain their recipe.
    metadata: bool,
    worker: Worker,
}

impl Client {
    /// Creates a client for a model on this machine.
    ///
    /// `path` is one of these. A leading `~` stands for the home directory.
    /// - A folder in the layout of the diffusers library, or a repository in the cache of the Hugging Face Hub.
    /// - A safetensors or GGUF file with the denoiser. The parts that it lacks (VAE, CLIP-L, CLIP-G and, optionally, T5) are
    ///   searched in its folder and in subfolders with ComfyUI's names, such as `vae` and `text_encoders`.
    /// - A folder with such files.
    ///
    /// Weights may be f32, f16, bf16, fp8 (plain or scaled) or quantised (GGUF), also mixed.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), lumenfall::Error> {
    /// let client = lumenfall::Client::local("~/models/stable-diffusion-3.5-medium")?;
    /// let images = client.images().generate("a lighthouse at dusk").inline().send().await?;
    /// images[0].save("lighthouse.png").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Model`] if a file or tensor is missing, truncated or part of another model. The message names it. The
    /// values of the weights are read and checked by the first request.
    pub fn local(path: impl AsRef<Path>) -> Result<Self, Error> {
        Local::open(path).map(Self::new)
    }

    /// Creates a client for the demonstration model, which is part of this crate.
    ///
    /// The model draws one or two shapes, letters or digits in ten colours on six backgrounds. Its images have 128×128 pixels.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lumenfall::Error> {
    /// let client = lumenfall::Client::demo()?;
    /// let images = client.images().generate("a red circle on a white background").inline().send().await?;
    /// assert!(images[0].bytes().starts_with(b"\x89PNG"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Compute`] if the operating system cannot start a thread.
    pub fn demo() -> Result<Self, Error> {
        Local::demo().map(Self::new)
    }
}

impl Local {
    /// Opens the demonstration model, which is part of this crate. See [`Client::demo`].
    ///
    /// # Errors
    /// The same as [`Client::demo`].
    pub fn demo() -> Result<Self, Error> {
        Self::demo_builder().open()
    }

    /// Creates a builder for the demonstration model, to open it with options or LoRAs. It has its own parts: naming the file of
    /// one is an error of [`LocalBuilder::open`].
    pub fn demo_builder() -> LocalBuilder {
        LocalBuilder::new(None)
    }

    /// Returns the GPUs of this machine, the most suitable one first. [`LocalBuilder::device`] selects one.
    #[cfg(feature = "gpu")]
    #[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
    pub fn devices() -> Vec<GpuInfo> {
        diffusion::devices()
    }

    /// Sets the id of the model. A request for another model is rejected with [`ErrorKind::Unsupported`]. Default:
    /// `stable-diffusion-3.5-medium`.
    #[must_use]
    pub fn model_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets whether image files contain the prompt and the parameters, as a [`Recipe`] and as text for other programs. GIF files
    /// never do. Default: true.
    #[must_use]
    pub fn metadata(mut self, metadata: bool) -> Self {
        self.metadata = metadata;
        self
    }

    /// Returns the width and height of images whose request has no size, in pixels.
    pub fn default_side(&self) -> u32 {
        self.model.pipeline.default_side()
    }

    /// Describes the model's parts, and the memory for an image of a size in pixels. It reads no weights.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the model does not support the size.
    pub fn inspect(&self, width: u32, height: u32) -> Result<ModelSummary, Error> {
        Ok(self.model.pipeline.summary(width, height)?)
    }

    /// Returns the hash that identifies the model's files; see
    /// [`Metadata::fingerprint`](crate::backend::Metadata::fingerprint).
    pub fn fingerprint(&self) -> &str {
        &self.model.fingerprint
    }

    /// Opens the model at a path, as [`Client::local`] does.
    ///
    /// # Errors
    /// The same as [`Client::local`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(path).open()
    }

    /// Creates a builder for the model at a path, with options or with files that lie apart.
    pub fn builder(path: impl AsRef<Path>) -> LocalBuilder {
        LocalBuilder::new(Some(path.as_ref()))
    }

    fn new(name: String, files: ModelFiles, options: LoadOptions, defaults: LocalOptions) -> Result<Self, Error> {
        let pipeline = Pipeline::open(&files, &options)?;
        let fingerprint = files.fingerprint_with(&options)?;
        let model = Model { name, files, fingerprint, options, defaults, pipeline, has_run: AtomicBool::new(false) };
        Ok(Self { model: Arc::new(model), id: SCHEMA.id.to_owned(), metadata: true, worker: Worker::start()? })
    }

    /// Runs `compute` on the worker thread and encodes its images.
    async fn run(
        &self,
        request: LocalRequest,
        context: &RequestContext,
        compute: impl FnOnce(&Pipeline, &LocalRequest, Callbacks<'_>) -> diffusion::Result<PipelineOutput> + Send + 'static,
    ) -> Result<Output, Error> {
        let started = Instant::now();
        let model = self.model.clone();
        let with_recipe = self.metadata;
        let stop_at = context.deadline.filter(|_| request.local.at_deadline == Some(AtDeadline::BestImage));
        let on_progress = |event| context.report(event);
        let job = self.worker.run(on_progress, move |is_cancelled, report| {
            if !model.has_run.swap(true, Ordering::Relaxed) {
                report(Progress::Loading);
            }
            let on_progress = |event| from_pipeline(event).into_iter().for_each(report);
            let previews = AtomicU32::new(0);
            let on_preview = |preview: Preview<'_>| {
                if let Ok(file) = preview.image.encode(FileFormat::Png) {
                    let index = previews.fetch_add(1, Ordering::Relaxed);
                    report(Progress::PartialImage { index, content: Content::Bytes(file.into()) });
                }
            };
            let mut callbacks = Callbacks::new(is_cancelled, &on_progress);
            if let Some(every) = request.local.preview_every {
                callbacks = callbacks.with_previews(every, &on_preview);
            }
            if let Some(stop_at) = stop_at {
                if stop_at <= Instant::now() {
                    return Err(late());
                }
                callbacks = callbacks.with_deadline(stop_at);
            }
            let output = compute(&model.pipeline, &request, callbacks)?;
            model.encode(&output, &request, with_recipe, started)
        });
        job.await
    }
}

impl Local {
    /// Checks the capabilities and the rules of every model.
    fn validate(&self, request: &Request) -> Result<(), Error> {
        self.check(request)?;
        check::check_every_model(request)
    }

    async fn execute(&self, request: Request, context: &RequestContext) -> Result<Output, Error> {
        self.validate(&request)?;
        match request {
            Request::Generate(GenerateSpec { model, prompt, options }) => {
                let request = LocalRequest::new(model, prompt, options, &self.model.defaults)?;
                self.run(request, context, |pipeline, request, callbacks| {
                    pipeline.generate(&request.parameters(pipeline, None), callbacks)
                })
                .await
            }
            // `check` rejects more than one image.
            Request::Edit(EditSpec { model, images, mask, prompt, options }) => {
                let Some(image) = images.first() else {
                    let message = "the edit has no image; the local backend requires one per edit";
                    return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("image"));
                };
                let mut request = LocalRequest::new(model, prompt.unwrap_or_default(), options, &self.model.defaults)?;
                let strength = *request.strength.get_or_insert(DEFAULT_STRENGTH);
                let files = async {
                    let mask = match &mask {
                        Some(mask) => Some(mask.read().await.map_err(|error| error.with_parameter("mask"))?),
                        None => None,
                    };
                    Ok::<_, Error>((image.read().await?, mask))
                };
                // A request that ends at its deadline with the best image has no other limit.
                let (file, mask) = before(context.deadline, late, files).await??;
                self.run(request, context, move |pipeline, request, callbacks| {
                    let Some(mask) = mask else {
                        let source = RgbImage::decode(&file)?;
                        let parameters = request.parameters(pipeline, Some((source.width(), source.height())));
                        return pipeline.edit(&source, strength, &parameters, callbacks);
                    };
                    // The colours of transparent pixels belong to the source, which may be its own mask.
                    let (source, _) = RgbImage::decode_with_alpha(&file)?;
                    let parameters = request.parameters(pipeline, Some((source.width(), source.height())));
                    pipeline.inpaint(&source, &Mask::decode(&mask)?, strength, &parameters, callbacks)
                })
                .await
            }
        }
    }
}

impl Backend for Local {
    fn name(&self) -> &str {
        "local"
    }

    /// Returns the folder, the model's [fingerprint](crate::backend::Metadata::fingerprint), the options that change files, and this crate's
    /// version, because versions may round differently.
    fn identity(&self) -> String {
        let Model { files, fingerprint, options, defaults, .. } = &*self.model;
        let folder = match files {
            ModelFiles::Folder(folder) => folder.canonicalize().unwrap_or_else(|_| folder.clone()),
            ModelFiles::Embedded(_) | ModelFiles::Parts(_) => PathBuf::new(),
        };
        let LoadOptions { without_t5, .. } = options;
        let metadata = self.metadata;
        format!("local {} {folder:?} {fingerprint} {without_t5:?} {metadata} {defaults:?}", env!("CARGO_PKG_VERSION"))
    }

    fn capabilities(&self) -> Capabilities {
        let sizes = self.model.pipeline.sizes();
        Capabilities {
            generate: true,
            edit: true,
            mask: true,
            estimate: true,
            free: true,
            fingerprint: Some(self.model.fingerprint.clone()),
            output_formats: options::output_formats(),
            size_step: sizes.multiple,
            max_size: Some((sizes.max, sizes.max)),
            max_input_images: Some(1),
            controls: vec!["seed", "steps", "guidance", "negative_prompt", "strength", "skip_layer_guidance"],
            local_options: true,
            models: Some(vec![self.id.clone()]),
            ..Capabilities::none()
        }
    }

    /// Also checks the options that are not part of the capabilities.
    fn check(&self, request: &Request) -> Result<(), Error> {
        LocalRequest::new(String::new(), String::new(), request.options().clone(), &self.model.defaults)?;
        self.capabilities().check(self.name(), request)
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let requested = request.options().local.at_deadline.or(self.model.defaults.at_deadline);
            if requested == Some(AtDeadline::BestImage) {
                return self.execute(request, &context).await;
            }
            before(context.deadline, late, self.execute(request, &context)).await?
        })
    }

    fn estimate<'a>(&'a self, request: Request, _context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        let result = self.validate(&request).map(|()| Estimate::new(Cost::nothing()));
        Box::pin(std::future::ready(result))
    }

    fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        no_urls(self.name())
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the deadline passed; allow more time or request fewer steps")
}

fn from_pipeline(progress: diffusion::Progress) -> Option<Progress> {
    match progress {
        diffusion::Progress::EncodingPrompt => Some(Progress::EncodingPrompt),
        diffusion::Progress::Step { image, step, steps, sigma, remaining } => {
            Some(Progress::Step { image, step, steps, sigma, remaining })
        }
        diffusion::Progress::Decoding { image } => Some(Progress::Decoding { image }),
        _ => None,
    }
}

impl From<diffusion::Error> for Error {
    fn from(error: diffusion::Error) -> Self {
        use diffusion::Error as E;
        let (kind, parameter) = match &error {
            E::MissingFile { .. } | E::Malformed { .. } | E::Tensor { .. } | E::NotFinite(_) => {
                (ErrorKind::Model, None)
            }
            E::File { .. } => (ErrorKind::Io, None),
            E::Image(_) => (ErrorKind::InvalidRequest, Some("image")),
            E::Tokenizer(_) => (ErrorKind::InvalidRequest, Some("prompt")),
            // The layers are those of this model, so another backend may support them.
            E::Parameter { parameter: parameter @ "skip_layer_guidance", .. } => {
                (ErrorKind::Unsupported, Some(*parameter))
            }
            // The schema allows other sizes, so another backend may support them.
            E::Parameter { parameter: "width" | "height", .. } => (ErrorKind::Unsupported, Some("size")),
            // Another backend may have more memory.
            E::Memory { .. } => (ErrorKind::Unsupported, None),
            E::Parameter { parameter, .. } => (ErrorKind::InvalidRequest, Some(*parameter)),
            _ => (ErrorKind::Compute, None),
        };
        let error = Self::new(kind, error.to_string());
        match parameter {
            Some(parameter) => error.with_parameter(parameter),
            None => error,
        }
    }
}
