//! Not too many at a time, not too many in a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time;

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};

/// Holds requests back so that a backend gets no more than it bears. Clones share the limits.
///
/// No order is kept among those that wait for the rate. One that would wait beyond its deadline fails with
/// [`ErrorKind::Timeout`], unsent; where the rate is what holds it back, as soon as that is known. Estimates and downloads are
/// not held back.
#[derive(Clone, Debug)]
#[must_use]
pub struct Limit<B> {
    inner: B,
    at_once: Option<Arc<Semaphore>>,
    rate: Option<Arc<Rate>>,
}

#[derive(Debug)]
struct Rate {
    requests: usize,
    period: Duration,
    /// When the last requests have started, oldest first.
    starts: Mutex<VecDeque<time::Instant>>,
}

impl<B: Backend> Limit<B> {
    /// `inner`, and so far no limit.
    pub fn new(inner: B) -> Self {
        Self { inner, at_once: None, rate: None }
    }

    /// At most `requests` at a time; at least 1.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.at_once = Some(Arc::new(Semaphore::new(requests.clamp(1, Semaphore::MAX_PERMITS))));
        self
    }

    /// At most `requests` (at least 1) start within any `period`.
    pub fn rate(mut self, requests: usize, period: Duration) -> Self {
        let requests = requests.max(1);
        self.rate = Some(Arc::new(Rate { requests, period, starts: Mutex::new(VecDeque::new()) }));
        self
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let _permit = self.turn(context.deadline).await?;
        request.send(&self.inner, context).await
    }

    /// Waits until one more request may start. None has a turn before it takes it, so that one that is dropped, or not polled
    /// any more, holds up no other.
    async fn turn(&self, deadline: Option<Instant>) -> Result<Option<SemaphorePermit<'_>>, Error> {
        loop {
            let permit = match &self.at_once {
                Some(semaphore) => Some(before(deadline, semaphore.acquire()).await?.map_err(|_| too_late())?),
                None => None,
            };
            let Some(Err(next)) = self.rate.as_ref().map(|rate| rate.take()) else { return Ok(permit) };
            drop(permit);
            let next = next.filter(|next| deadline.is_none_or(|deadline| *next < deadline.into()));
            time::sleep_until(next.ok_or_else(too_late)?).await;
        }
    }
}

impl Rate {
    /// Starts a request now, or tells when the next may start: `None` where that is beyond all time.
    fn take(&self) -> Result<(), Option<time::Instant>> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = time::Instant::now();
        if let Some(spent) = starts.len().checked_sub(self.requests) {
            starts.drain(..spent);
            let next = starts.front().and_then(|oldest| oldest.checked_add(self.period));
            if next.is_none_or(|next| next > now) {
                return Err(next);
            }
        }
        starts.push_back(now);
        Ok(())
    }
}

async fn before<T>(deadline: Option<Instant>, wait: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        Some(deadline) => time::timeout_at(deadline.into(), wait).await.map_err(|_| too_late()),
        None => Ok(wait.await),
    }
}

fn too_late() -> Error {
    Error::new(ErrorKind::Timeout, "the request would wait for its turn beyond its deadline; it was not sent")
}

impl<B: Backend> Backend for Limit<B> {
    run_both_modes!();
    inner_does_the_rest!();
}
