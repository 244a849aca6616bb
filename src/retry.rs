//! When to try again, and after how long.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use crate::error::Error;

/// When a failed request is tried again.
///
/// A generation costs money each time it runs, so by default only a failure that proves the request
/// was not executed is tried again: connecting failed, 429 or 503 (unless the code of an upstream or internal error is there,
/// or may have been lost), a stream that the server refused by HTTP/2's own means, or the gateway's word that every provider refused.
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
}

/// The first wait is drawn from zero up to this; each further one from zero up to twice as much.
const BASE: Duration = Duration::from_millis(500);
/// No drawn wait is longer. A wait that the service asks for may be, up to `max_wait`.
const CEILING: Duration = Duration::from_secs(8);

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 3, max_wait: Duration::from_secs(60), may_bill_twice: false }
    }
}

impl RetryPolicy {
    /// Never tries again.
    pub fn none() -> Self {
        Self { max_retries: 0, ..Self::default() }
    }

    /// How often to try again after the first try; 3 by default.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// The longest wait that a service's `Retry-After` can impose; 60 seconds by default.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Also tries again where the request may have been executed: a broken connection after sending, a
    /// time-out of the answer, a 5xx. You may then pay more than once for one result.
    pub fn may_bill_twice(mut self) -> Self {
        self.may_bill_twice = true;
        self
    }

    /// The wait before the next try after `attempts` that ended in `error`; `None` where there is none left, or the
    /// wait would end after the deadline: that would end in a worse error than this one.
    pub(crate) fn next_wait(&self, attempts: u32, error: &Error, deadline: Option<Instant>) -> Option<Duration> {
        let wait = self.wait(attempts, error.retry_after());
        let in_time =
            deadline.is_none_or(|deadline| Instant::now().checked_add(wait).is_some_and(|end| end < deadline));
        (attempts <= self.max_retries && in_time).then_some(wait)
    }

    /// The wait before try number `attempt + 1`. Never shorter than what the service asked for (up to
    /// `max_wait`); otherwise drawn evenly from zero to the bound ("full jitter"), so that many
    /// clients that failed together do not return together.
    pub(crate) fn wait(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let bound = BASE.saturating_mul(1 << (attempt.saturating_sub(1)).min(10)).min(CEILING);
        let drawn = bound.mul_f64(random_share());
        asked.map_or(drawn, |asked| asked.min(self.max_wait).max(drawn.min(self.max_wait)))
    }
}

/// A share between 0 and 1. The standard library seeds each `RandomState` at random, which is
/// all that jitter needs.
fn random_share() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1_u64 << 53) as f64
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
    fn retry_after_is_honoured_up_to_the_cap() {
        let retry = RetryPolicy::default();
        assert_eq!(retry.wait(1, Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(retry.wait(1, Some(Duration::from_secs(86_400))), Duration::from_secs(60));
    }
}
