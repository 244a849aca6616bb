//! Default parameters and a default timeout.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::layer::Layer;
use crate::backend::*;
use crate::error::Error;
use crate::values::{OutputFormat, Sampling};

/// Sets parameters and a timeout for all requests that do not set them.
///
/// A parameter of a request takes precedence over the default. So does a parameter that excludes it: a default `size` is not used
/// in a request with `aspect_ratio` or `resolution`, and the reverse. Two defaults are used only where they apply:
/// `output_compression` if the file format is lossy, and `strength` in edits. Parameters of [`Options::extra`] and options of the local backend are merged by name.
///
/// The request and its defaults together are checked against the schema of the model, if this crate contains it. The builder
/// does not know the defaults: methods that do not use the backend, such as `published_price()`, ignore them.
///
/// ```
/// use std::time::Duration;
///
/// use lumenfall::backend::Options;
/// use lumenfall::layers::Defaults;
/// use lumenfall::testing::MockBackend;
/// use lumenfall::{Client, Sampling};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lumenfall::Error> {
/// let mock = MockBackend::new();
/// let options = Options::default().with_n(2).with_sampling(Sampling::default().with_steps(20));
/// let client = Client::new(Defaults::new(mock.clone()).options(options).timeout(Duration::from_secs(90)));
///
/// client.images().generate("a lighthouse").steps(40).send().await?;
/// let sent = mock.requests()[0].options().clone();
/// assert_eq!((sent.n, sent.sampling.steps), (Some(2), Some(40)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Defaults<B> {
    inner: B,
    options: Options,
    timeout: Option<Duration>,
}

impl<B: Backend> Defaults<B> {
    /// Wraps `inner` without any default.
    pub fn new(inner: B) -> Self {
        Self { inner, options: Options::default(), timeout: None }
    }

    /// Sets the default parameters, and replaces those that were set before.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets the default timeout of a whole call, including its retries and waits.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds the defaults to a request, and checks it.
    fn apply(&self, mut request: Request) -> Result<Request, Error> {
        let is_edit = matches!(request, Request::Edit(_));
        merge(request.options_mut(), self.options.clone(), is_edit);
        request.validate()?;
        Ok(request)
    }

    fn with_deadline(&self, mut context: RequestContext) -> RequestContext {
        // A timeout that exceeds the range of the clock is no limit.
        let deadline = || self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        context.deadline = context.deadline.or_else(|| deadline().map(Instant::into_std));
        context
    }
}

/// Sets the fields of `options` that are not set. The patterns have no `..`, so a new option does not compile until it is added.
fn merge(options: &mut Options, defaults: Options, is_edit: bool) {
    let Options {
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
        #[cfg(feature = "local")]
        local,
        extra,
    } = defaults;
    let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
    if options.size.is_none() {
        if options.aspect_ratio.is_none() && options.resolution.is_none() {
            options.size = size;
        }
        options.aspect_ratio = options.aspect_ratio.or(aspect_ratio);
        options.resolution = options.resolution.or(resolution);
    }
    options.provider = options.provider.take().or(provider);
    options.response_format = options.response_format.or(response_format);
    options.output_format = options.output_format.or(output_format);
    if options.output_format.is_some_and(OutputFormat::is_lossy) {
        options.output_compression = options.output_compression.or(output_compression);
    }
    options.n = options.n.or(n);
    options.user = options.user.take().or(user);
    #[cfg(feature = "local")]
    options.local.merge(local);
    for (name, value) in extra {
        options.extra.entry(name).or_insert(value);
    }
    let sampling = &mut options.sampling;
    sampling.seed = sampling.seed.or(seed);
    sampling.steps = sampling.steps.or(steps);
    sampling.guidance = sampling.guidance.or(guidance);
    sampling.negative_prompt = sampling.negative_prompt.take().or(negative_prompt);
    sampling.strength = sampling.strength.or(strength.filter(|_| is_edit));
    sampling.skip_layer_guidance = sampling.skip_layer_guidance.take().or(skip_layer_guidance);
}

impl<B: Backend> Layer for Defaults<B> {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    /// Returns the identity of the inner backend and the default parameters, because they change images.
    fn layer_identity(&self) -> String {
        format!("defaults {:?} {}", self.options.of_images(), self.inner.identity())
    }

    /// Checks the request with its defaults.
    fn layer_check(&self, request: &Request) -> Result<(), Error> {
        self.inner.check(&self.apply(request.clone())?)
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(async move { self.inner.send(self.apply(request)?, self.with_deadline(context)).await })
    }

    /// Estimates the cost of the request with its defaults.
    fn layer_estimate<'a>(
        &'a self,
        request: Request,
        context: RequestContext,
    ) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(async move { self.inner.estimate(self.apply(request)?, self.with_deadline(context)).await })
    }
}
