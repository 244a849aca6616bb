//! Not too many at a time, not too many in a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};

/// Holds requests back so that a backend gets no more than it bears. Clones share the limits.
///
/// A request that waits beyond its deadline fails with [`ErrorKind::Timeout`], unsent; where the rate is what holds it back, it
/// fails at once.
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
    /// When the requests of the last period have started, and when those that wait will; oldest first.
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
            let mut turn = rate.book(context.deadline)?;
            tokio::time::sleep_until(turn.start.into()).await;
            turn.taken = true;
        }
        request.send(&self.inner, context).await
    }
}

impl Rate {
    /// The next time at which a request may start.
    fn book(&self, deadline: Option<Instant>) -> Result<Turn<'_>, Error> {
        let mut starts = self.starts();
        let now = Instant::now();
        while starts
            .front()
            .is_some_and(|start| now.checked_duration_since(*start).is_some_and(|ago| ago >= self.period))
        {
            starts.pop_front();
        }
        let start = match starts.len().checked_sub(self.requests).and_then(|nth| starts.get(nth)) {
            Some(before) => before.checked_add(self.period).ok_or_else(too_late)?,
            None => now,
        };
        if deadline.is_some_and(|deadline| start >= deadline) {
            return Err(too_late());
        }
        let place = starts.partition_point(|other| *other <= start);
        starts.insert(place, start);
        Ok(Turn { rate: self, start, taken: false })
    }

    fn starts(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a request may start. One that is dropped while it waits gives its place back.
struct Turn<'a> {
    rate: &'a Rate,
    start: Instant,
    taken: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.taken {
            let mut starts = self.rate.starts();
            if let Ok(place) = starts.binary_search(&self.start) {
                starts.remove(place);
            }
        }
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
