//! Not too many at a time, not too many in a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};

/// Holds requests back so that a backend gets no more than it bears. Clones share the limits.
///
/// Requests start in the order in which they came. One that waits beyond its deadline fails with [`ErrorKind::Timeout`], unsent;
/// the next in line fails at once where its turn would come too late.
/// Estimates and downloads are not held back.
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
    /// When the last requests have started, oldest first. Whoever waits for a turn holds it, and the others stand in line.
    starts: Mutex<VecDeque<Instant>>,
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
        let _permit = match &self.at_once {
            Some(semaphore) => Some(before(context.deadline, semaphore.acquire()).await?),
            None => None,
        };
        if let Some(rate) = &self.rate {
            rate.turn(context.deadline).await?;
        }
        request.send(&self.inner, context).await
    }
}

impl Rate {
    /// Waits until one more request may start. One that is dropped while it waits leaves its turn to the next.
    async fn turn(&self, deadline: Option<Instant>) -> Result<(), Error> {
        let mut starts = before(deadline, self.starts.lock()).await?;
        if let Some(nth) = starts.len().checked_sub(self.requests) {
            starts.drain(..nth);
            let next = starts.front().and_then(|oldest| oldest.checked_add(self.period)).ok_or_else(too_late)?;
            if deadline.is_some_and(|deadline| next >= deadline) {
                return Err(too_late());
            }
            tokio::time::sleep_until(next.into()).await;
        }
        starts.push_back(Instant::now());
        Ok(())
    }
}

async fn before<T>(deadline: Option<Instant>, wait: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), wait).await.map_err(|_| too_late()),
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
