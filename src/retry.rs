//! Retrying failed requests.

use std::time::Duration;

use crate::backend::{Progress, RequestContext};
use crate::error::{Bills, Error};
use tokio::time::Instant;

/// Decides when failed requests are retried.
///
/// A generation is billed each time it is executed. By default a request is therefore retried only if the failure proves
/// that it was not executed: the connection could not be opened; the status is 429, or 503 (unless the body contains the
/// code of an upstream or internal error, or is malformed so that a code may be missing); the server refused the HTTP/2
/// stream; or the gateway reports that all providers refused.
///
/// An error of a gateway that retries by itself is final, because the retries would multiply; see
/// [`retry_gateways`](Self::retry_gateways).
///
/// ```
/// use lumenfall::RetryPolicy;
///
/// let patient = RetryPolicy::default().max_retries(6);
/// let never = RetryPolicy::none();
/// # let _ = (patient, never);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RetryPolicy {
    pub(crate) max_retries: u32,
    pub(crate) max_wait: Duration,
    pub(crate) may_bill_twice: bool,
    pub(crate) retry_gateways: bool,
    /// The upper bound of the first random wait. It doubles with each retry, up to `ceiling`.
    first_wait: Duration,
    ceiling: Duration,
    max_elapsed: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            max_wait: Duration::from_secs(60),
            may_bill_twice: false,
            retry_gateways: false,
            first_wait: Duration::from_millis(500),
            ceiling: Duration::from_secs(8),
            max_elapsed: None,
        }
    }
}

impl RetryPolicy {
    /// Returns a policy that never retries.
    pub fn none() -> Self {
        Self { max_retries: 0, ..Self::default() }
    }

    /// Sets the maximum number of retries after the first attempt. The default is 3.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// Sets the maximum wait that a service can impose with `Retry-After`. The default is 60 seconds.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets the waits between attempts: each is random, below a bound that starts at `first`, doubles with each retry, and is
    /// at most `ceiling`. The defaults are 500 milliseconds and 8 seconds. A wait that the service asks for can be longer.
    pub fn backoff(mut self, first: Duration, ceiling: Duration) -> Self {
        (self.first_wait, self.ceiling) = (first, ceiling);
        self
    }

    /// Sets the time after the start of the first attempt within which a retry may start. Unlimited by default. Unlike a
    /// timeout, it does not interrupt an attempt that runs. Each poll of a job and each download has a time of its own.
    pub fn max_elapsed(mut self, limit: Duration) -> Self {
        self.max_elapsed = Some(limit);
        self
    }

    /// Also retries if the request may have been executed: after a connection that was closed once the request was sent,
    /// a timeout, or a 5xx status. You may then pay more than once for one result.
    pub fn may_bill_twice(mut self) -> Self {
        self.may_bill_twice = true;
        self
    }

    /// Also retries after errors of a gateway that retries by itself: LiteLLM, whose responses have headers that start with
    /// `x-litellm-`. Use it if the gateway's own retries are off, because otherwise they multiply with these. The layer
    /// [`Retry`](crate::layers::Retry) does not need it.
    pub fn retry_gateways(mut self) -> Self {
        self.retry_gateways = true;
        self
    }

    /// Returns the wait after attempt number `attempt`, from 1.
    ///
    /// It is at least what the service asked for, up to `max_wait`. Otherwise it is drawn evenly between zero and an upper
    /// bound that doubles with each attempt ("full jitter"), so that clients that failed together do not retry together.
    pub(crate) fn wait(&self, attempt: u32, requested: Option<Duration>) -> Duration {
        let bound = self.first_wait.saturating_mul(1 << (attempt.saturating_sub(1)).min(10)).min(self.ceiling);
        let random = bound.mul_f64(fastrand::f64());
        requested.map_or(random, |requested| requested.min(self.max_wait).max(random.min(self.max_wait)))
    }
}

/// The attempts of one request so far.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: RetryPolicy,
    deadline: Option<Instant>,
    started: Instant,
    /// How many attempts have failed.
    pub(crate) failed: u32,
    /// What the failed attempts may have cost.
    pub(crate) bills: Bills,
}

impl Attempts {
    /// `started` is when the first attempt started.
    pub(crate) fn new(policy: &RetryPolicy, deadline: Option<Instant>, started: Instant) -> Self {
        Self { policy: policy.clone(), deadline, started, failed: 0, bills: Bills::default() }
    }

    /// Records a failed attempt, then waits and returns true if there is another one.
    ///
    /// There is none if `may_retry` is false, if the policy's retries or its time are used up, or if the wait would end after
    /// the deadline: the error at the deadline would explain less than `error` does.
    pub(crate) async fn retry_after(&mut self, error: &Error, may_retry: bool, context: &RequestContext) -> bool {
        self.failed = self.failed.saturating_add(1);
        self.bills.add(error.bills());
        let wait = self.policy.wait(self.failed, error.retry_after());
        let ends_in_time = |deadline| Instant::now().checked_add(wait).is_some_and(|end| end < deadline);
        let limit = self.policy.max_elapsed.and_then(|limit| self.started.checked_add(limit));
        let in_time = [self.deadline, limit].into_iter().flatten().all(ends_in_time);
        let retry = may_retry && self.failed <= self.policy.max_retries && in_time;
        if retry {
            let attempt = self.failed.saturating_add(1);
            tracing::info!(attempt, ?wait, "the request is retried: {error}");
            context.report(Progress::Retrying { attempt, wait });
            tokio::time::sleep(wait).await;
        }
        retry
    }

    /// Returns the time since the first attempt started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_drawn_below_a_bound_that_doubles() {
        let retry = RetryPolicy::default();
        for (attempt, bound) in [(1, 500), (2, 1000), (3, 2000), (10, 8000), (100, 8000)] {
            let waits: Vec<_> = (0..200).map(|_| retry.wait(attempt, None)).collect();
            assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(bound)));
            assert!(waits.iter().any(|wait| *wait > Duration::from_millis(bound / 2)));
            assert!(waits.iter().any(|wait| *wait < Duration::from_millis(bound / 2)));
        }
    }

    #[test]
    fn the_backoff_can_be_set() {
        let retry = RetryPolicy::default().backoff(Duration::from_secs(2), Duration::from_secs(3));
        for (attempt, bound) in [(1, 2), (2, 3), (9, 3)] {
            let waits: Vec<_> = (0..200).map(|_| retry.wait(attempt, None)).collect();
            assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(bound)));
            assert!(waits.iter().any(|wait| *wait > Duration::from_secs(bound) / 2));
        }
    }

    #[test]
    fn retry_after_is_honoured_up_to_the_cap() {
        let retry = RetryPolicy::default();
        assert_eq!(retry.wait(1, Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(retry.wait(1, Some(Duration::from_secs(86_400))), Duration::from_secs(60));
    }
}
