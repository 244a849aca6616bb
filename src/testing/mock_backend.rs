//! A backend without a model.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{self, Instant};

use super::pixel::pixel;
use crate::backend::{
    Backend, BoxFuture, ByteStream, Capabilities, Content, Cost, EditSpec, Estimate, ImageData, Metadata, Output,
    Request, RequestContext, no_urls,
};
use crate::error::{Error, ErrorKind};
use crate::images::OutputFormat;
use crate::images::typed::{Mode, Schema, check};
use crate::timer;

/// A backend that returns images of one gray pixel, or the errors that a test has queued.
///
/// It checks each request against the schema of its model, as `validate()` does. It does not imitate what a specific
/// backend rejects beyond that: for example, it accepts every sampling control and every provider. Clones share all
/// state.
///
/// ```
/// use lumenfall::testing::MockBackend;
/// use lumenfall::{Client, Error, ErrorKind};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Error> {
/// let backend = MockBackend::new();
/// backend.fail_next(Error::new(ErrorKind::RateLimited, "slow down"));
/// let client = Client::new(backend.clone());
///
/// assert!(client.images().generate("a lighthouse").send().await.is_err());
/// let images = client.images().generate("a lighthouse").inline().send().await?;
/// assert_eq!(images[0].media_type(), Some("image/png"));
/// assert_eq!(backend.requests().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MockBackend {
    name: Option<String>,
    delay: Duration,
    /// In USD per image.
    cost: Option<f64>,
    rejects_edits: bool,
    schema: Option<&'static Schema>,
    /// The bytes of each image, instead of the pixel.
    returned: Option<Bytes>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    failures: VecDeque<Error>,
    /// Each running request has a clone.
    running: Arc<()>,
    peak: usize,
}

impl MockBackend {
    /// Creates a backend with the name `mock` that responds immediately and reports a cost of 0.02 USD per image.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a backend that supports the modes and file formats of `schema`, and checks requests for its model against it. A
    /// program that generates builders for its
    /// own schema passes it here.
    pub fn for_schema(schema: &'static Schema) -> Self {
        Self { schema: Some(schema), ..Self::default() }
    }

    /// Sets the bytes of each image, instead of those of a gray pixel. If their file format is known, a request for another
    /// `output_format` is rejected with [`ErrorKind::Unsupported`].
    pub fn returning(mut self, bytes: impl Into<Bytes>) -> Self {
        self.returned = Some(bytes.into());
        self
    }

    /// Sets the name in metadata and messages.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the duration of each request.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets the reported cost per image, in USD.
    pub fn cost_per_image(mut self, amount: f64) -> Self {
        self.cost = Some(amount);
        self
    }

    /// Rejects edits with [`ErrorKind::Unsupported`].
    pub fn without_edits(mut self) -> Self {
        self.rejects_edits = true;
        self
    }

    /// Queues an error for the next valid request. Queued errors are returned in order, one per request.
    pub fn fail_next(&self, error: Error) {
        self.state().failures.push_back(error);
    }

    /// Returns the requests that reached this backend, oldest first. Requests that a layer rejected or served from a
    /// cache are not included.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Returns the largest number of requests that ran at the same time.
    pub fn peak(&self) -> usize {
        self.state().peak
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the capabilities and the rules of the model and of every model.
    fn validate(&self, request: &Request) -> Result<(), Error> {
        self.check(request)?;
        check::check_every_model(request)?;
        match (request, self.schema) {
            (Request::Generate(spec), Some(schema)) if spec.model == schema.id => schema.check(spec),
            (Request::Edit(spec), Some(schema)) if spec.model == schema.id => schema.check(spec),
            (Request::Generate(spec), _) => spec.validate(),
            (Request::Edit(spec), _) => spec.validate(),
        }
    }

    fn price(&self, request: &Request) -> Cost {
        Cost::new(self.cost.unwrap_or(0.02) * f64::from(request.options().n.unwrap_or(1)), "USD")
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        timer::check()?;
        let started = Instant::now();
        if let Request::Edit(EditSpec { images, mask, .. }) = &request {
            for input in images.iter().chain(mask) {
                input.read().await?;
            }
        }
        let _running = {
            let mut state = self.state();
            state.requests.push(request.clone());
            let running = Arc::clone(&state.running);
            state.peak = state.peak.max(Arc::strong_count(&running) - 1);
            running
        };
        self.validate(&request)?;
        if let Some(error) = self.state().failures.pop_front() {
            return Err(error);
        }
        // A delay that exceeds the range of the clock never ends.
        let end = started.checked_add(self.delay);
        let is_late = |deadline: &Instant| end.is_none_or(|end| *deadline <= end);
        if let Some(deadline) = context.deadline.map(Instant::from).filter(is_late) {
            time::sleep_until(deadline).await;
            return Err(Error::new(ErrorKind::Timeout, "the deadline passed while the request ran"));
        }
        match end {
            Some(end) => time::sleep_until(end).await,
            None => pending().await,
        }
        let options = request.options();
        let pixel = || Bytes::from_static(pixel(options.output_format.unwrap_or(OutputFormat::Png)));
        let file = self.returned.clone().unwrap_or_else(pixel);
        let image = |index: u32| ImageData {
            content: Content::Bytes(file.clone()),
            revised_prompt: None,
            seed: options.sampling.seed.map(|seed| seed.wrapping_add(u64::from(index))),
        };
        let metadata = Metadata {
            backend: self.name().to_owned(),
            parameters: Some(options.of_images()),
            cost: Some(self.price(&request)),
            attempts: 1,
            elapsed: started.elapsed(),
            ..Metadata::default()
        };
        Ok(Output::new((0..options.n.unwrap_or(1)).map(image).collect(), metadata))
    }
}

impl Backend for MockBackend {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("mock")
    }

    fn identity(&self) -> String {
        self.name().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        let returned = self.returned.as_deref().and_then(OutputFormat::of);
        let has_mode = |mode| self.schema.is_none_or(|schema| schema.modes.contains(&mode));
        let is_supported = |format: &OutputFormat| {
            let value = <&str>::from(*format).into();
            returned.is_none_or(|returned| returned == *format)
                && self.schema.is_none_or(|schema| schema.check_value("output_format", &value).is_ok())
        };
        let edit = !self.rejects_edits && has_mode(Mode::ImageEdit);
        Capabilities {
            generate: has_mode(Mode::TextToImage),
            edit,
            mask: edit && self.schema.is_none_or(|schema| schema.parameter("mask").is_some()),
            estimate: true,
            output_formats: OutputFormat::ALL.into_iter().filter(is_supported).collect(),
            controls: Capabilities::ALL_CONTROLS.to_vec(),
            ..Capabilities::none()
        }
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            self.validate(&request)?;
            Ok(Estimate::new(self.price(&request)))
        })
    }

    fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        no_urls(self.name())
    }
}
