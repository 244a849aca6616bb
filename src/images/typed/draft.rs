//! A request on its way: the data, where it goes, and how its images come back.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Schema, Spec};
use crate::Client;
use crate::backend::{Estimate, Progress, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::images::{Address, Delivery, Images, Inline, ResponseFormat};

/// A request that is ready to send.
///
/// The typed builders fill one in; `generate_spec` and `edit_spec` make one of plain data.
#[derive(Clone, Debug)]
pub struct Draft<S, Answer = Address> {
    /// Boxed, so that neither a builder's calls nor the futures around a call carry it along.
    parts: Box<Parts<S>>,
    answer: PhantomData<fn() -> Answer>,
}

#[derive(Clone, Debug)]
struct Parts<S> {
    client: Client,
    schema: &'static Schema,
    spec: S,
    context: RequestContext,
    timeout: Option<Duration>,
}

impl<S: Spec> Draft<S> {
    /// A request of `spec` to the model of `schema`.
    pub fn new(client: Client, schema: &'static Schema, spec: S) -> Self {
        let parts = Parts { client, schema, spec, context: RequestContext::default(), timeout: None };
        Self { parts: Box::new(parts), answer: PhantomData }
    }
}

impl<S: Spec, Answer> Draft<S, Answer> {
    /// The request as plain data.
    pub fn spec(&self) -> &S {
        &self.parts.spec
    }

    /// The request as plain data, to change it.
    pub fn spec_mut(&mut self) -> &mut S {
        &mut self.parts.spec
    }

    /// The request as plain data, alone.
    pub fn into_spec(self) -> S {
        self.parts.spec
    }

    /// Asks for the images' bytes inside the answer.
    #[must_use]
    pub fn inline(self) -> Draft<S, Inline> {
        self.answered()
    }

    /// Asks for temporary addresses of the images.
    #[must_use]
    pub fn addresses(self) -> Draft<S, Address> {
        self.answered()
    }

    /// Asks for the images as `Other` says.
    #[must_use]
    pub fn answered<Other: Delivery>(mut self) -> Draft<S, Other> {
        self.parts.spec.options_mut().response_format = Some(Other::RESPONSE_FORMAT);
        Draft { parts: self.parts, answer: PhantomData }
    }

    /// How long the whole call may take, retries included, from `send()` on.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.parts.timeout = Some(timeout);
        self
    }

    /// Calls `progress` for each step of the work, from whatever thread does it.
    #[must_use]
    pub fn on_progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.parts.context.progress = Some(Arc::new(progress));
        self
    }

    /// What the request costs by the published prices, computed here: see [`Schema::published_price`].
    ///
    /// # Errors
    /// Where the request breaks a rule of the model, or no price applies.
    pub fn published_price(&self) -> Result<Estimate, Error> {
        self.parts.schema.published_price(&self.parts.spec)
    }

    /// What the request would cost, as the backend says. Nothing is made.
    ///
    /// # Errors
    /// Where the request breaks a rule of the model, or the backend cannot tell.
    pub async fn estimate(self) -> Result<Estimate, Error> {
        let context = self.parts.checked()?;
        let Parts { client, spec, .. } = *self.parts;
        client.backend().estimate(spec.into_request(), context).await
    }

    /// Sends the request. Dropping the future stops the work.
    ///
    /// # Errors
    /// Where the request breaks a rule of the model ([`ErrorKind::InvalidRequest`], which names the
    /// parameter), and whatever the backend runs into.
    pub async fn send(self) -> Result<Images<Answer>, Error>
    where
        Answer: Delivery,
    {
        if let Some(format) = self.spec().options().response_format
            && format != Answer::RESPONSE_FORMAT
        {
            let message = match format {
                ResponseFormat::B64Json => "`response_format` asks for bytes; call `.inline()` before `.send()`",
                ResponseFormat::Url => "`response_format` asks for addresses; call `.addresses()` before `.send()`",
            };
            return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("response_format"));
        }
        let context = self.parts.checked()?;
        let Parts { client, spec, .. } = *self.parts;
        let deadline = context.deadline;
        let output = spec.send(&**client.backend(), context).await?;
        Images::receive_before(deadline, client.backend(), output).await
    }
}

impl<S: Spec> Parts<S> {
    /// What travels beside the request, if the model takes it.
    fn checked(&self) -> Result<RequestContext, Error> {
        self.spec.check(self.schema)?;
        let mut context = self.context.clone();
        // A time-out beyond what the clock can count is none.
        context.deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(context)
    }
}
