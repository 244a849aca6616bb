//! Retries after transient failures.

use super::failed_attempts::FailedAttempts;
use crate::backend::layer::Layer;
use crate::backend::*;
use crate::error::Error;
use crate::retry::{Attempts, RetryPolicy};
use crate::timer;
use tokio::time::Instant;

/// Retries requests after [transient](Error::is_transient) failures, as a [`RetryPolicy`] allows.
///
/// By default only a request that certainly [generated no image](Error::made_nothing) is retried, so that no result is
/// paid for twice. [`RetryPolicy::may_bill_twice`] removes this restriction.
///
/// All attempts and waits end before the deadline of the request ([`RequestContext::deadline`], or `.timeout(..)` of a
/// request builder). Without a deadline, only the backend's own timeouts apply, to each attempt separately.
///
/// The remote backends of this crate already retry, and know better than this layer which requests were not executed:
/// configure them with [`RemoteBuilder::retry`](crate::remote::RemoteBuilder::retry). Use this layer for custom backends
/// or for a whole [`Fallback`](super::Fallback).
#[derive(Clone, Debug)]
#[must_use]
pub struct Retry<B> {
    inner: B,
    policy: RetryPolicy,
}

impl<B: Backend> Retry<B> {
    /// Wraps `inner` to retry its requests as `policy` allows.
    pub fn new(inner: B, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        timer::check()?;
        let policy = context.retry.as_ref().unwrap_or(&self.policy).clone();
        // The policy of the call applies to this layer, and not once more to each attempt.
        let inner_context = RequestContext { retry: None, ..context.clone() };
        let mut attempts = Attempts::new(&policy, context.deadline.map(Into::into), Instant::now());
        let mut failed = FailedAttempts::default();
        let mut sent = 0;
        loop {
            let error = match self.inner.send(request.clone(), inner_context.clone()).await {
                Ok(output) => return Ok(failed.add_to_output(output)),
                Err(error) => error,
            };
            failed.add(&error);
            // The backend may have retried the request itself, or not sent it at all.
            sent = error.attempts().saturating_add(sent);
            let may_retry = error.is_transient() && (policy.may_bill_twice || error.made_nothing());
            if !attempts.retry_after(&error, may_retry, &context).await {
                return Err(failed.add_to_error(error).with_attempts(sent.max(attempts.failed), attempts.elapsed()));
            }
        }
    }
}

impl<B: Backend> Layer for Retry<B> {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    /// Returns the identity of the inner backend, because this layer does not change images.
    fn layer_identity(&self) -> String {
        self.inner.identity()
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }
}
