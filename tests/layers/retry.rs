//! Retries of failures that were not billed.

use std::time::Duration;

use lumenfall::backend::Backend;
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
