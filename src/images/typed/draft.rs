//! A request that is ready to send.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Mode, Schema, Spec, View, check};
use crate::backend::{Backend, Cancellation, Estimate, Options, Progress, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::images::{Delivery, Hosted, Images, Inline};
use crate::retry::RetryPolicy;
use crate::values::ResponseFormat;

/// A request whose parameters can be set at run time, under a condition or in a loop.
///
/// `into_draft` converts a typed builder into a draft, and [`Client::request`](crate::Client::request), `generate_spec` and
/// `edit_spec` create one from plain data. A draft keeps the timeout, the progress callback and the delivery of the builder.
/// It can be cloned, so one draft serves many requests. The rules of the model are checked when it is sent.
///
/// ```
/// use lumenfall::{Client, Error, Size};
///
/// # #[cfg(feature = "testing")]
/// async fn draw(client: &Client, prompts: &[&str], size: Option<Size>) -> Result<(), Error> {
///     let mut draft = client.images().generate("").seed(7).inline().into_draft();
///     draft.options_mut().size = size;
///     draft.set("steps", 20)?;
///     for prompt in prompts {
///         let images = draft.clone().prompt(*prompt).send().await?;
///         println!("{} bytes", images[0].bytes().len());
///     }
///     Ok(())
/// }
/// # #[cfg(feature = "testing")]
/// # #[tokio::main]
/// # async fn main() {
/// #     let client = Client::new(lumenfall::testing::MockBackend::new());
/// #     draw(&client, &["a lighthouse", "a ship"], None).await.unwrap();
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct Draft<S, D = Hosted> {
    backend: Arc<dyn Backend>,
    /// `None` if this crate does not know the model.
    schema: Option<&'static Schema>,
    spec: S,
    context: RequestContext,
    timeout: Option<Duration>,
    cancellation: Option<Cancellation>,
    delivery: PhantomData<fn() -> D>,
}

impl<S: Spec> Draft<S> {
    /// Creates a request to the model of `schema`, to be executed by `backend`.
    pub fn new(backend: Arc<dyn Backend>, schema: &'static Schema, spec: S) -> Self {
        Self::with_schema(backend, Some(schema), spec)
    }
}

impl<S: Spec, D> Draft<S, D> {
    pub(crate) fn with_schema(backend: Arc<dyn Backend>, schema: Option<&'static Schema>, spec: S) -> Self {
        let context = RequestContext::default();
        Self { backend, schema, spec, context, timeout: None, cancellation: None, delivery: PhantomData }
    }

    #[cfg(feature = "local")]
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Returns the request as plain data.
    pub fn spec(&self) -> &S {
        &self.spec
    }

    /// Returns the request as plain data, to change it.
    pub fn spec_mut(&mut self) -> &mut S {
        &mut self.spec
    }

    /// Returns the optional parameters, to change them.
    pub fn options_mut(&mut self) -> &mut Options {
        self.spec.options_mut()
    }

    /// Sets the prompt.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.spec.set_prompt(prompt.into());
        self
    }

    /// Sets a parameter by its name in the schema, in this crate (`steps`) or in the API (`num_inference_steps`). Null
    /// removes it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the parameter's name, if the value has another type, if the model does not
    /// support it, or if the model has no parameter with this name. Parameters that the schema does not contain can be set
    /// in [`Options::extra`].
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<&mut Self, Error> {
        let value = value.into();
        if let Some(schema) = self.schema {
            schema.check_setting(name, &value)?;
        }
        self.spec.set(name, value)?;
        Ok(self)
    }

    /// Checks the request against all rules of the model. [`send`](Self::send) does so, too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for the first violated rule. The error names the parameter.
    pub fn check(&self) -> Result<(), Error> {
        check::check(self.schema, &self.spec)
    }

    /// Converts the request into plain data, which contains neither the timeout nor the callback nor the cancellation.
    pub fn into_spec(self) -> S {
        self.spec
    }

    /// Requests the images as bytes inside the response.
    #[must_use]
    pub fn inline(self) -> Draft<S, Inline> {
        self.delivered_as()
    }

    /// Requests the images as temporary URLs. This is the default.
    #[must_use]
    pub fn hosted(self) -> Draft<S, Hosted> {
        self.delivered_as()
    }

    /// Requests the images as `Other` specifies: [`Inline`], [`Hosted`], or
    /// [`Any`](crate::images::Any), which keeps the requested response format.
    #[must_use]
    pub fn delivered_as<Other: Delivery>(self) -> Draft<S, Other> {
        let Self { backend, schema, mut spec, context, timeout, cancellation, delivery: _ } = self;
        let format = &mut spec.options_mut().response_format;
        *format = Other::RESPONSE_FORMAT.or(*format);
        Draft { backend, schema, spec, context, timeout, cancellation, delivery: PhantomData }
    }

    /// Limits the duration of the whole call, including retries, from the call of `send()`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets a callback for progress events. It can be called from any thread and must return quickly.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.context.progress = Some(Arc::new(progress));
        self
    }

    /// Lets `cancellation` cancel the request from another task or thread.
    #[must_use]
    pub fn cancel_with(mut self, cancellation: &Cancellation) -> Self {
        self.cancellation = Some(cancellation.clone());
        self
    }

    /// Adds a header to the API requests of a remote backend; other backends ignore it. Its value is a secret.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.headers.push((name.into(), value.into()));
        self
    }

    /// Replaces the retry policy of the backend.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.context.retry = Some(policy);
        self
    }

    /// Computes the price from the published prices in the schema, without a request; see [`Schema::published_price`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the request violates a rule of the model, [`ErrorKind::Unsupported`] if the schema
    /// contains no price for it.
    pub fn published_price(&self) -> Result<Estimate, Error> {
        match self.schema {
            Some(schema) => schema.published_price(&self.spec),
            None => Err(Error::new(ErrorKind::Unsupported, "the prices of this model are unknown; call `estimate()`")),
        }
    }

    /// Asks the backend for the price of the request. No images are generated.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the request violates a rule of the model, [`ErrorKind::Unsupported`] if the
    /// backend has no price estimates, and any error of the backend.
    pub async fn estimate(self) -> Result<Estimate, Error> {
        let context = self.checked_context()?;
        self.backend.estimate(self.spec.into(), context).await
    }

    /// Sends the request. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the request violates a rule of the model, which the error names, and any error of
    /// the backend.
    pub async fn send(self) -> Result<Images<D>, Error>
    where
        D: Delivery,
    {
        if let Some(format) = self.spec.view().options.response_format
            && D::RESPONSE_FORMAT.is_some_and(|expected| format != expected)
        {
            let message = match format {
                ResponseFormat::B64Json => "`response_format` is b64_json; call `.inline()` before `.send()`",
                ResponseFormat::Url => "`response_format` is url; call `.hosted()` before `.send()`",
            };
            return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("response_format"));
        }
        let context = self.checked_context()?;
        let View { mode, model, options, .. } = self.spec.view();
        // The names follow the OpenTelemetry conventions for generative AI.
        let span = tracing::info_span!(
            "image_generation",
            gen_ai.operation.name = if mode == Mode::TextToImage { "text_to_image" } else { "image_edit" },
            gen_ai.request.model = model,
            gen_ai.request.choice.count = options.n.unwrap_or(1),
            gen_ai.provider.name = self.backend.name(),
            error.type = tracing::field::Empty,
        );
        let result = self.execute_or_cancel(context).instrument(span.clone()).await;
        span.in_scope(|| match &result {
            Ok(images) => {
                for warning in &images.metadata().warnings {
                    tracing::warn!("{warning}");
                }
            }
            Err(error) => {
                span.record("error.type", tracing::field::debug(error.kind()));
                tracing::debug!("the request failed: {error}");
            }
        });
        result
    }

    async fn execute_or_cancel(self, context: RequestContext) -> Result<Images<D>, Error>
    where
        D: Delivery,
    {
        let Some(cancellation) = self.cancellation.clone() else { return self.execute(context).await };
        let cancelled = |message| Error::new(ErrorKind::Cancelled, message);
        if cancellation.is_cancelled() {
            return Err(cancelled("the request was cancelled before it was sent"));
        }
        let is_free = self.backend.capabilities().free;
        let (cancel, execute) = (pin!(cancellation.cancelled()), pin!(self.execute(context)));
        match future::select(cancel, execute).await {
            Either::Left(_) => Err(cancelled("the request was cancelled").with_maybe_billed(!is_free)),
            Either::Right((result, _)) => result,
        }
    }

    async fn execute(self, context: RequestContext) -> Result<Images<D>, Error>
    where
        D: Delivery,
    {
        let (deadline, backend) = (context.deadline, &self.backend);
        let requested = D::RESPONSE_FORMAT.or(self.spec.view().options.response_format);
        let output = backend.send(self.spec.into(), context).await?;
        Images::receive_before(requested, deadline, backend, output).await
    }

    /// Checks the request and returns its context, in which the timeout has become a deadline.
    fn checked_context(&self) -> Result<RequestContext, Error> {
        self.check()?;
        let mut context = self.context.clone();
        context.model = self.schema.map(Schema::api).unwrap_or_default();
        // A timeout that exceeds the range of the clock is no limit.
        context.deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout)).map(Instant::into_std);
        Ok(context)
    }
}
