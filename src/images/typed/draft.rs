//! A request that is ready to send.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Schema, Spec};
use crate::backend::{Backend, Estimate, Options, Progress, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::images::{Delivery, Hosted, Images, Inline};
use crate::values::ResponseFormat;

/// A request that is ready to send.
///
/// `generate_spec` and `edit_spec` create one from plain data, and each typed builder contains one.
#[derive(Clone, Debug)]
pub struct Draft<S, D = Hosted> {
    backend: Arc<dyn Backend>,
    schema: &'static Schema,
    spec: S,
    context: RequestContext,
    timeout: Option<Duration>,
    delivery: PhantomData<fn() -> D>,
}

impl<S: Spec> Draft<S> {
    /// Creates a request to the model of `schema`, to be executed by `backend`.
    pub fn new(backend: Arc<dyn Backend>, schema: &'static Schema, spec: S) -> Self {
        let context = RequestContext::default();
        Self { backend, schema, spec, context, timeout: None, delivery: PhantomData }
    }
}

impl<S: Spec, D> Draft<S, D> {
    /// Returns the request as plain data, to change it.
    pub fn spec_mut(&mut self) -> &mut S {
        &mut self.spec
    }

    /// Returns the optional parameters, to change them.
    pub fn options_mut(&mut self) -> &mut Options {
        self.spec.options_mut()
    }

    /// Converts the request into plain data.
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

    /// Requests the images as `Other` specifies: [`Inline`] or [`Hosted`].
    #[must_use]
    pub fn delivered_as<Other: Delivery>(self) -> Draft<S, Other> {
        let Self { backend, schema, mut spec, context, timeout, delivery: _ } = self;
        spec.options_mut().response_format = Some(Other::RESPONSE_FORMAT);
        Draft { backend, schema, spec, context, timeout, delivery: PhantomData }
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

    /// Computes the price from the published prices in the schema, without a request; see [`Schema::published_price`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the request violates a rule of the model, [`ErrorKind::Unsupported`] if the schema
    /// contains no price for it.
    pub fn published_price(&self) -> Result<Estimate, Error> {
        self.schema.published_price(&self.spec)
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
            && format != D::RESPONSE_FORMAT
        {
            let message = match format {
                ResponseFormat::B64Json => "`response_format` is b64_json; call `.inline()` before `.send()`",
                ResponseFormat::Url => "`response_format` is url; call `.hosted()` before `.send()`",
            };
            return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("response_format"));
        }
        let context = self.checked_context()?;
        let (deadline, backend) = (context.deadline, &self.backend);
        let output = backend.send(self.spec.into(), context).await?;
        Images::receive_before(deadline, backend, output).await
    }

    /// Checks the request and returns its context, in which the timeout has become a deadline.
    fn checked_context(&self) -> Result<RequestContext, Error> {
        self.schema.check(&self.spec)?;
        let mut context = self.context.clone();
        // A timeout that exceeds the range of the clock is no limit.
        context.deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout)).map(Instant::into_std);
        Ok(context)
    }
}
