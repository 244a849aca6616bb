//! The native pipeline behind the trait: this machine makes the images.

mod options;

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Instant;

use bytes::Bytes;
use lumenfall_diffusion as diffusion;
use lumenfall_diffusion::{
    Control, FileFormat, LoadOptions, ModelFiles, Parameters, Picture, Pictures, Pipeline, Stage,
};
use tokio::sync::oneshot;

use crate::backend::{
    Backend, BoxFuture, Capabilities, Content, Cost, EditSpec, Estimate, GenerateSpec, ImageData, Metadata, Output,
    Progress, Request, RequestContext,
};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::images::OutputFormat;

/// A Stable Diffusion 3.5 model on this machine.
///
/// Requests are computed one after the other on a thread of its own, which uses all processors; the caller's async
/// runtime is never blocked. Dropping a request's future stops its work before the next transformer block. The weights
/// are read when the first request comes, and to their end even if it is dropped: the next request has them then.
///
/// An answer always holds bytes, whatever was asked for, and costs nothing.
#[derive(Debug)]
pub struct Local {
    model: Arc<Model>,
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Model {
    name: String,
    files: ModelFiles,
    options: LoadOptions,
    pipeline: OnceLock<Pipeline>,
}

/// Tells the worker that nobody waits any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client {
    /// A client of the model in a folder on this machine, in the layout of the diffusers library.
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
    /// [`ErrorKind::Model`] where the folder lacks a part or holds one that is damaged or of another model: it names the
    /// file and the tensor. The weights' values are read, and checked, by the first request.
    pub fn local(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Local::open(folder).map(Self::new)
    }

    /// A client of the small demonstration model that comes with this crate: it draws simple shapes in eight colours on
    /// four backgrounds, in pictures of 64×64 pixels, and knows nothing else.
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
    /// Where no thread can be started.
    pub fn demo() -> Result<Self, Error> {
        Local::new("demo".into(), diffusion::demo_files(), LoadOptions::default()).map(Self::new)
    }
}

impl Local {
    /// The model in a folder, computed with all processors.
    ///
    /// # Errors
    /// As [`Client::local`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(folder, LoadOptions::default())
    }

    /// The model in a folder, with a say in how it is computed.
    ///
    /// # Errors
    /// As [`Client::local`].
    pub fn open_with(folder: impl AsRef<Path>, options: LoadOptions) -> Result<Self, Error> {
        let folder = at_home(folder.as_ref());
        if !folder.is_dir() {
            let message =
                format!("there is no model folder {}; give the folder that holds model_index.json", folder.display());
            return Err(Error::new(ErrorKind::Model, message));
        }
        let name = folder.file_name().map_or("local".into(), |name| name.to_string_lossy().into_owned());
        Self::new(name, ModelFiles::Folder(folder), options)
    }

    fn new(name: String, files: ModelFiles, options: LoadOptions) -> Result<Self, Error> {
        Pipeline::check(&files).map_err(from_diffusion)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        // It ends when the last sender is dropped, with the backend.
        std::thread::Builder::new()
            .name("lumenfall-local".into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Compute,
                    format!("cannot start the thread that computes: {error}; end other programs"),
                )
            })?;
        Ok(Self { model: Arc::new(Model { name, files, options, pipeline: OnceLock::new() }), jobs })
    }

    /// Runs `make` on the worker and waits for its pictures.
    async fn run(
        &self,
        parameters: Parameters,
        format: FileFormat,
        context: RequestContext,
        make: impl FnOnce(&Pipeline, &Parameters, Control<'_>) -> diffusion::Result<Pictures> + Send + 'static,
    ) -> Result<Output, Error> {
        let started = Instant::now();
        let stopped = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(stopped.clone());
        let (answer, result) = oneshot::channel();
        let model = self.model.clone();
        let deadline = context.deadline;
        let job = move || {
            let stop =
                || stopped.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let work = || {
                let pipeline = model.pipeline(&context, &stop)?;
                let progress = |stage| tell(&context, stage);
                make(pipeline, &parameters, Control { stop: &stop, progress: &progress }).map_err(from_diffusion)
            };
            // A panic, in the caller's own progress function for one, must not end the thread that serves the others.
            let output = panic::catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|payload| Err(panicked(&*payload)))
                .and_then(|pictures| model.output(&pictures, format, started));
            // Where nobody waits any more there is nobody to tell.
            let _ = answer.send(output);
        };
        let gone = || Error::new(ErrorKind::Compute, "the thread that computes has ended; make a new client");
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        let result = match deadline {
            // The worker watches the deadline, too, but other requests may come before this one.
            Some(deadline) => tokio::time::timeout_at(deadline.into(), result).await.map_err(|_| timed_out())?,
            None => result.await,
        };
        result.map_err(|_| gone())?
    }
}

impl Model {
    fn pipeline(&self, context: &RequestContext, stop: &dyn Fn() -> bool) -> Result<&Pipeline, Error> {
        if stop() {
            return Err(timed_out());
        }
        if let Some(pipeline) = self.pipeline.get() {
            return Ok(pipeline);
        }
        if let Some(progress) = &context.progress {
            progress(Progress::Loading);
        }
        let pipeline = Pipeline::load(&self.files, &self.options).map_err(from_diffusion)?;
        Ok(self.pipeline.get_or_init(|| pipeline))
    }

    fn output(&self, pictures: &Pictures, format: FileFormat, started: Instant) -> Result<Output, Error> {
        let image = |(index, picture): (u64, &Picture)| {
            Ok(ImageData {
                content: Content::Bytes(Bytes::from(picture.encode(format).map_err(from_diffusion)?)),
                revised_prompt: None,
                seed: Some(pictures.seed.wrapping_add(index)),
            })
        };
        let images = (0..).zip(&pictures.pictures).map(image).collect::<Result<_, Error>>()?;
        let metadata = Metadata {
            backend: "local".into(),
            model: Some(self.name.clone()),
            steps: Some(pictures.steps),
            cost: Some(Cost::nothing()),
            elapsed: started.elapsed(),
            warnings: pictures.warnings.clone(),
            ..Metadata::default()
        };
        Ok(Output::new(images, metadata))
    }
}

impl Backend for Local {
    fn name(&self) -> &str {
        "local"
    }

    /// The folder, how it is loaded, and this crate's version, since another may round otherwise.
    fn identity(&self) -> String {
        let Model { files, options, .. } = &*self.model;
        let place = match files {
            ModelFiles::Folder(folder) => folder.canonicalize().unwrap_or_else(|_| folder.clone()),
            ModelFiles::Embedded(_) => PathBuf::new(),
        };
        format!("local {} {place:?} {:?} {:?}", env!("CARGO_PKG_VERSION"), options.without_t5, options.ops)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            edit: true,
            estimate: true,
            output_formats: vec![OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp],
            ..Capabilities::none()
        }
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let GenerateSpec { model: _, prompt, options } = spec;
            let (request, format) = options::read(prompt, options)?;
            if request.strength.is_some() {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    "`strength` belongs to an edit; an image made from a prompt alone has no source: leave it out",
                )
                .with_parameter("strength"));
            }
            self.run(request.parameters(), format, context, move |pipeline, parameters, control| {
                pipeline.generate(&request.sized(parameters, pipeline, None), control)
            })
            .await
        })
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move {
            let EditSpec { model: _, images, mask, prompt, options } = spec;
            if mask.is_some() {
                return Err(options::unsupported(
                    "mask",
                    "an edit on this machine changes the whole image; leave the mask out",
                ));
            }
            let image = match images.as_slice() {
                [image] => image,
                [] => {
                    let message = "an edit needs an image to change; give one";
                    return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("image"));
                }
                several => {
                    let why = format!(
                        "an edit on this machine takes one image, not {}; edit one after the other",
                        several.len()
                    );
                    return Err(options::unsupported("image", &why));
                }
            };
            let (request, format) = options::read(prompt.unwrap_or_default(), options)?;
            let file = image.read().await?;
            self.run(request.parameters(), format, context, move |pipeline, parameters, control| {
                let source = Picture::decode(&file)?;
                let own = (source.width(), source.height());
                pipeline.edit(&source, &request.sized(parameters, pipeline, Some(own)), control)
            })
            .await
        })
    }

    fn estimate<'a>(&'a self, _request: Request, _context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(std::future::ready(Ok(Estimate::new(Cost::nothing()))))
    }
}

fn tell(context: &RequestContext, stage: Stage) {
    let Some(progress) = &context.progress else { return };
    match stage {
        Stage::EncodingPrompt => progress(Progress::EncodingPrompt),
        Stage::Step { image, step, steps } => progress(Progress::Step { image, step, steps }),
        Stage::Decoding { image } => progress(Progress::Decoding { image }),
        // Stages that later versions add are told when this crate knows them.
        _ => {}
    }
}

/// `~/models` as a shell would read it.
fn at_home(folder: &Path) -> PathBuf {
    match (folder.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder.to_path_buf(),
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let said = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    let said = said.unwrap_or("it said nothing");
    let message = format!("the work panicked: {said}; mend your progress function, or else report a defect");
    Error::new(ErrorKind::Compute, message)
}

fn timed_out() -> Error {
    let message = "time ran out before the image was made; allow more of it or ask for fewer steps";
    Error::new(ErrorKind::Timeout, message)
}

fn from_diffusion(error: diffusion::Error) -> Error {
    use diffusion::Error as E;
    let kind = match &error {
        E::Cancelled => return timed_out(),
        E::MissingFile { .. } | E::Malformed { .. } | E::Tensor { .. } | E::NotFinite(_) => ErrorKind::Model,
        E::File { .. } => ErrorKind::Io,
        E::Parameter { .. } | E::Image(_) | E::Tokenizer(_) => ErrorKind::InvalidRequest,
        _ => ErrorKind::Compute,
    };
    let parameter = match &error {
        // A request has one size, whichever of its functions set it.
        E::Parameter { parameter: "width" | "height", .. } => Some("size"),
        E::Parameter { parameter, .. } => Some(*parameter),
        E::Image(_) => Some("image"),
        _ => None,
    };
    let error = Error::new(kind, error.to_string());
    match parameter {
        Some(parameter) => error.with_parameter(parameter),
        None => error,
    }
}
