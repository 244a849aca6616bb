//! Retries of failures that were not billed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lumenfall::backend::{Backend, Progress, RequestContext};
use lumenfall::layers::Retry;
use lumenfall::testing::MockBackend;
use lumenfall::{ErrorKind, RetryPolicy};
use tokio::time::Instant;

use crate::{billed, deadline_in, error, exhausted, generate, spec};

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried_unless_an_image_may_have_been_generated() {
    let default = RetryPolicy::default;
    for (failure, policy, retried) in [
        (error(ErrorKind::Connection), default(), true),
        (error(ErrorKind::Timeout), default(), true),
        (error(ErrorKind::RateLimited), default(), true),
        (error(ErrorKind::Upstream), default(), true),
        (exhausted(), default(), true),
        (billed(ErrorKind::Timeout), default(), false),
        (billed(ErrorKind::Timeout), default().may_bill_twice(), true),
        (error(ErrorKind::ContentPolicy), default().may_bill_twice(), false),
        (error(ErrorKind::RateLimited), RetryPolicy::none(), false),
    ] {
        let mock = MockBackend::new();
        let expected = (failure.kind(), failure.maybe_billed());
        mock.fail_next(failure);
        match generate(&Retry::new(mock.clone(), policy), spec()).await {
            Ok(_) => assert!(retried, "{expected:?}"),
            Err(error) => assert_eq!(((error.kind(), error.maybe_billed()), retried), (expected, false)),
        }
        assert_eq!(mock.requests().len(), 1 + usize::from(retried), "{expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_unless_it_ends_after_the_deadline() {
    let wait = Duration::from_secs(30);
    for (timeout, succeeds) in [(Duration::from_secs(5), false), (Duration::from_secs(60), true)] {
        let mock = MockBackend::new();
        mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(wait));
        let started = Instant::now();
        let result = Retry::new(mock, RetryPolicy::default()).send(spec().into(), deadline_in(timeout)).await;
        match result {
            Ok(_) => assert!(succeeds && started.elapsed() >= wait),
            Err(error) => {
                assert_eq!((error.kind(), succeeds), (ErrorKind::RateLimited, false));
                assert_eq!(started.elapsed(), Duration::ZERO);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_reported_and_end_after_the_maximum_time() {
    let (mock, wait) = (MockBackend::new(), Duration::from_secs(10));
    for _ in 0..9 {
        mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(wait));
    }
    let reported = Arc::<Mutex<Vec<_>>>::default();
    let mut context = RequestContext::default();
    let report = Arc::clone(&reported);
    context.progress = Some(Arc::new(move |progress| report.lock().unwrap().push(progress)));
    let policy = RetryPolicy::default().max_retries(9).max_elapsed(Duration::from_secs(25));
    let started = Instant::now();
    let failure = Retry::new(mock.clone(), policy).send(spec().into(), context).await.unwrap_err();
    assert_eq!((failure.attempts(), mock.requests().len(), started.elapsed()), (3, 3, 2 * wait));
    let retries: Vec<_> = reported.lock().unwrap().drain(..).collect();
    assert_eq!(retries, [2, 3].map(|attempt| Progress::Retrying { attempt, wait }));
}

/// Otherwise the policy would apply twice, to the layer and to each of its attempts.
#[tokio::test(start_paused = true)]
async fn the_policy_of_a_call_replaces_that_of_the_outermost_layer_only() {
    let mock = MockBackend::new();
    for _ in 0..9 {
        mock.fail_next(error(ErrorKind::RateLimited));
    }
    let inner = Retry::new(mock.clone(), RetryPolicy::none());
    let mut context = RequestContext::default();
    context.retry = Some(RetryPolicy::default().max_retries(2));
    Retry::new(inner, RetryPolicy::none()).send(spec().into(), context).await.unwrap_err();
    assert_eq!(mock.requests().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_attempts_saturates() {
    let mock = MockBackend::new();
    for _ in 0..2 {
        mock.fail_next(error(ErrorKind::RateLimited).with_attempts(u32::MAX, Duration::ZERO));
    }
    let retry = Retry::new(mock, RetryPolicy::default().max_retries(1));
    assert_eq!(generate(&retry, spec()).await.unwrap_err().attempts(), u32::MAX);
}

/// A test double can be given any delay.
#[tokio::test(start_paused = true)]
async fn a_delay_beyond_the_range_of_the_clock_lasts_until_the_deadline() {
    let mock = MockBackend::new().delay(Duration::MAX);
    let failure = mock.send(spec().into(), deadline_in(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Timeout);
}
