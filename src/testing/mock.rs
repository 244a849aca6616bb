//! A backend that makes nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::pixel::{FORMATS, pixel};
use crate::backend::{
    Backend, BoxFuture, Capabilities, Content, Cost, EditSpec, Estimate, GenerateSpec, ImageData, Metadata, Output,
    Request, RequestContext,
};
use crate::error::{Error, ErrorKind};
use crate::images::OutputFormat;

/// A backend that answers each request with grey pixels, or with the errors it is told to. Clones share
/// everything.
///
/// It checks requests as the typed builders do, so a test sees the same refusals as the real thing.
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
#[derive(Clone, Debug)]
pub struct MockBackend {
    name: String,
    delay: Duration,
    cost: f64,
    edits: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    failures: VecDeque<Error>,
    running: usize,
    peak: usize,
}

impl Default for MockBackend {
    fn default() -> Self {
        Self { name: "mock".into(), delay: Duration::ZERO, cost: 0.02, edits: true, state: Arc::default() }
    }
}

impl MockBackend {
    /// Answers at once, and costs 0.02 USD an image.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Has this name in metadata and messages.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Answers after this time.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Costs this many USD an image.
    #[must_use]
    pub fn cost_per_image(mut self, amount: f64) -> Self {
        self.cost = amount;
        self
    }

    /// Cannot edit.
    #[must_use]
    pub fn without_edits(mut self) -> Self {
        self.edits = false;
        self
    }

    /// Fails a coming request with `error`. Several errors are used in the order of their calls.
    pub fn fail_next(&self, error: Error) {
        self.state().failures.push_back(error);
    }

    /// The requests that came, oldest first; not those that a layer refused before.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The most requests that ran at the same time.
    pub fn peak(&self) -> usize {
        self.state().peak
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        match request {
            Request::Generate(spec) => spec.validate()?,
            Request::Edit(_) if !self.edits => {
                return Err(Error::new(ErrorKind::Unsupported, format!("the backend `{}` cannot edit", self.name)));
            }
            Request::Edit(spec) => spec.validate()?,
        }
        Ok(())
    }

    fn price(&self, request: &Request) -> Cost {
        let n = f64::from(request.options().n.unwrap_or(1));
        Cost { amount: self.cost * n, currency: "USD".into() }
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let started = Instant::now();
        if let Request::Edit(EditSpec { images, mask, .. }) = &request {
            for input in images.iter().chain(mask) {
                input.read().await?;
            }
        }
        let _running = Running::start(self, request.clone());
        self.check(&request)?;
        let failure = self.state().failures.pop_front();
        if let Some(error) = failure {
            return Err(error);
        }
        let ready = started + self.delay;
        if context.deadline.is_some_and(|deadline| deadline <= ready) {
            tokio::time::sleep_until(context.deadline.unwrap_or(started).into()).await;
            return Err(Error::new(ErrorKind::Timeout, "the deadline passed"));
        }
        tokio::time::sleep_until(ready.into()).await;
        let options = request.options();
        let images = (0..options.n.unwrap_or(1))
            .map(|i| ImageData {
                content: Content::Bytes(Bytes::from_static(pixel(options.output_format.unwrap_or(OutputFormat::Png)))),
                revised_prompt: None,
                seed: options.sampling.seed.map(|seed| seed.wrapping_add(u64::from(i))),
            })
            .collect();
        let metadata = Metadata {
            backend: self.name.clone(),
            cost: Some(self.price(&request)),
            elapsed: started.elapsed(),
            ..Metadata::default()
        };
        Ok(Output::new(images, metadata))
    }
}

/// Counts a request while it runs, dropped or not.
struct Running<'a>(&'a MockBackend);

impl<'a> Running<'a> {
    fn start(mock: &'a MockBackend, request: Request) -> Self {
        let mut state = mock.state();
        state.requests.push(request);
        state.running += 1;
        state.peak = state.peak.max(state.running);
        Self(mock)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

impl Backend for MockBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            generate: true,
            edit: self.edits,
            mask: self.edits,
            estimate: true,
            output_formats: FORMATS.to_vec(),
            ..Capabilities::none()
        }
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Generate(spec), context))
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(Request::Edit(spec), context))
    }

    fn estimate<'a>(&'a self, request: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move {
            self.check(&request)?;
            Ok(Estimate::new(self.price(&request)))
        })
    }
}
