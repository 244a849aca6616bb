//! Limits on concurrency and request rate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time;

use crate::backend::layer::Layer;
use crate::backend::*;
use crate::error::{Error, ErrorKind};
use crate::timer;

/// Limits how many requests run at the same time and how many start within a period. Clones share the limits.
///
/// Requests wait for their turn, in no particular order, and report [`Progress::Queued`] if they have to wait. A request that
/// would wait beyond its deadline fails with [`ErrorKind::Timeout`] and is not sent; if the rate limit is the cause, it fails
/// immediately. Estimates and downloads are not limited.
#[derive(Clone, Debug)]
#[must_use]
pub struct Limit<B> {
    inner: B,
    concurrency: Option<Arc<Semaphore>>,
    rate: Option<Arc<Rate>>,
}

#[derive(Debug)]
struct Rate {
    requests: usize,
    period: Duration,
    /// The start times of the most recent requests, oldest first.
    starts: Mutex<VecDeque<time::Instant>>,
}

impl<B: Backend> Limit<B> {
    /// Wraps `inner` without any limit.
    pub fn new(inner: B) -> Self {
        Self { inner, concurrency: None, rate: None }
    }

    /// Sets the maximum number of requests that run at the same time, at least 1. Unlimited by default.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(Arc::new(Semaphore::new(requests.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// Sets the maximum number of requests, at least 1, that start within any interval of length `period`. Unlimited by
    /// default.
    pub fn rate(mut self, requests: usize, period: Duration) -> Self {
        self.rate = Some(Arc::new(Rate { requests: requests.max(1), period, starts: Mutex::default() }));
        self
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let _permit = self.wait_for_turn(&context).await?;
        self.inner.send(request, context).await
    }

    /// Waits until another request may start. While it waits for the rate it has no permit and no place in a queue, so
    /// a future that is dropped or no longer polled does not block others.
    async fn wait_for_turn(&self, context: &RequestContext) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let deadline = context.deadline;
        let mut report = context.progress.as_deref();
        let mut report_queued = || {
            report.take().into_iter().for_each(|report| report(Progress::Queued { position: None }));
        };
        loop {
            let permit = match &self.concurrency {
                Some(semaphore) => match semaphore.try_acquire() {
                    Ok(permit) => Some(permit),
                    Err(_) => {
                        report_queued();
                        // `acquire` fails only if the semaphore is closed, which it never is.
                        before(deadline, too_late, semaphore.acquire()).await?.ok()
                    }
                },
                None => None,
            };
            let Some(Err(next)) = self.rate.as_ref().map(|rate| rate.start()) else { return Ok(permit) };
            drop(permit);
            let next = next.filter(|next| deadline.is_none_or(|deadline| *next < deadline.into()));
            let next = next.ok_or_else(too_late)?;
            report_queued();
            timer::check()?;
            time::sleep_until(next).await;
        }
    }
}

impl Rate {
    /// Records the start of a request, or returns when the next one may start: `None` if the clock cannot represent that.
    fn start(&self) -> Result<(), Option<time::Instant>> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::Instant::now();
        if let Some(outdated) = starts.len().checked_sub(self.requests) {
            starts.drain(..outdated);
            let next = starts.front().and_then(|oldest| oldest.checked_add(self.period));
            if next.is_none_or(|next| next > now) {
                return Err(next);
            }
        }
        starts.push_back(now);
        Ok(())
    }
}

fn too_late() -> Error {
    let message = "the request was not sent, because its limit allows it only after its deadline; extend the timeout";
    Error::new(ErrorKind::Timeout, message)
}

impl<B: Backend> Layer for Limit<B> {
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
