//! Another try where one cannot have been billed.

use std::time::{Duration, Instant};

use lumenfall::backend::{Backend, RequestContext};
use lumenfall::layers::Retry;
use lumenfall::testing::MockBackend;
use lumenfall::{ErrorKind, RetryPolicy};

use crate::{error, generate, spec};

#[tokio::test]
async fn a_retry_tries_again_what_cannot_have_been_billed() {
    let mock = MockBackend::new();
    let retry = Retry::new(mock.clone(), RetryPolicy::default());
    mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(Duration::from_millis(30)));
    mock.fail_next(error(ErrorKind::Upstream).with_maybe_billed(true).with_nothing_made());
    let started = Instant::now();
    generate(&retry, spec()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(30), "it waits as long as it is asked to");
    assert_eq!(mock.requests().len(), 3);
}

#[tokio::test]
async fn a_retry_leaves_alone_what_may_have_been_billed_or_would_fail_again() {
    let mock = MockBackend::new();
    let retry = Retry::new(mock.clone(), RetryPolicy::default());
    for (failure, billed) in
        [(error(ErrorKind::Timeout).with_maybe_billed(true), true), (error(ErrorKind::ContentPolicy), false)]
    {
        mock.fail_next(failure);
        assert_eq!(generate(&retry, spec()).await.unwrap_err().maybe_billed(), billed);
    }
    assert_eq!(mock.requests().len(), 2);

    let bold = Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(1));
    for _ in 0..2 {
        mock.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    }
    let last = generate(&bold, spec()).await.unwrap_err();
    assert_eq!((last.attempts(), last.maybe_billed_tries(), mock.requests().len()), (2, 2, 4));
}

#[tokio::test]
async fn a_retry_does_not_wait_beyond_the_deadline() {
    let mock = MockBackend::new();
    mock.fail_next(error(ErrorKind::RateLimited).with_retry_after(Duration::from_secs(30)));
    let mut context = RequestContext::default();
    context.deadline = Some(Instant::now() + Duration::from_secs(5));
    let started = Instant::now();
    let failure = Retry::new(mock, RetryPolicy::default()).generate(spec(), context).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::RateLimited);
    assert!(started.elapsed() < Duration::from_secs(1));
}
