//! Money that is counted before and after.

use std::time::Duration;

use lumenfall::layers::{Cache, Fallback, Retry, SpendCap};
use lumenfall::testing::MockBackend;
use lumenfall::{ErrorKind, RetryPolicy};

use crate::changed::Changed;
use crate::{Folder, error, generate, seeded, spec};

#[tokio::test]
async fn a_spend_cap_refuses_before_sending() {
    let mock = MockBackend::new().cost_per_image(0.4);
    let cap = SpendCap::new(mock.clone(), 1.0, "usd");
    generate(&cap, spec()).await.unwrap();
    generate(&cap, spec()).await.unwrap();
    let error = generate(&cap, spec()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InsufficientBalance, Some("SPEND_CAP")));
    assert!(!error.maybe_billed());
    assert_eq!(mock.requests().len(), 2);
    assert!((cap.spent().amount - 0.8).abs() < 1e-9 && (cap.remaining().amount - 0.2).abs() < 1e-9);
}

#[tokio::test]
async fn a_spend_cap_holds_for_requests_at_the_same_time() {
    let mock = MockBackend::new().cost_per_image(0.4).delay(Duration::from_millis(50));
    let cap = SpendCap::new(mock.clone(), 1.0, "USD");
    let calls = tokio::join!(generate(&cap, spec()), generate(&cap, spec()), generate(&cap, spec()));
    assert_eq!([calls.0.is_ok(), calls.1.is_ok(), calls.2.is_ok()].iter().filter(|ok| **ok).count(), 2);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn a_spend_cap_counts_the_real_cost_and_what_may_have_been_billed() {
    let mock = MockBackend::new().cost_per_image(0.1);
    let cap = SpendCap::new(mock.clone(), 10.0, "USD").per_image(1.0);
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 0.1).abs() < 1e-9, "what the answer says");
    mock.fail_next(error(ErrorKind::RateLimited));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 0.1).abs() < 1e-9, "nothing for what did not run");
    mock.fail_next(error(ErrorKind::Timeout).with_maybe_billed(true));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 1.1).abs() < 1e-9, "the expectation for what may have run");
}

#[tokio::test]
async fn a_call_that_was_dropped_counts_as_spent() {
    let cap = SpendCap::new(MockBackend::new().delay(Duration::from_secs(60)), 1.0, "USD").per_image(0.6);
    assert!(tokio::time::timeout(Duration::from_millis(20), generate(&cap, spec())).await.is_err());
    assert!((cap.spent().amount - 0.6).abs() < 1e-9);
    assert_eq!(generate(&cap, spec()).await.unwrap_err().code(), Some("SPEND_CAP"));
}

#[tokio::test]
async fn a_spend_cap_counts_every_try_that_may_have_been_billed() {
    let mock = MockBackend::new().cost_per_image(0.5);
    let retry = Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(2));
    let fallback = Fallback::new(MockBackend::new().cost_per_image(1.0)).then(mock.clone()).even_if_billed();
    let billed = || error(ErrorKind::Timeout).with_maybe_billed(true);
    mock.fail_next(billed());
    let cap = SpendCap::new(retry, 10.0, "USD");
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 1.0).abs() < 1e-9, "one lost, one made: {:?}", cap.spent());
    (0..3).for_each(|_| mock.fail_next(billed()));
    generate(&cap, spec()).await.unwrap_err();
    assert!((cap.spent().amount - 2.5).abs() < 1e-9, "three lost: {:?}", cap.spent());
    mock.fail_next(error(ErrorKind::RateLimited));
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 3.0).abs() < 1e-9, "one refused, one made: {:?}", cap.spent());

    // Expected is the dearest, and the answer tells what it was.
    let cap = SpendCap::new(fallback, 10.0, "USD");
    generate(&cap, spec()).await.unwrap();
    assert!((cap.spent().amount - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_question_for_the_price_that_may_have_been_billed_uses_up_the_cap() {
    let mock = MockBackend::new();
    let cap = SpendCap::new(Changed { estimate: false, billed: true, ..Changed::new(mock.clone()) }, 5.0, "USD");
    let error = generate(&cap, spec()).await.unwrap_err();
    assert!(error.maybe_billed());
    assert_eq!((cap.spent().amount, cap.remaining().amount, mock.requests().len()), (5.0, 0.0, 0));
}

#[tokio::test]
async fn a_spend_cap_counts_nothing_for_what_the_cache_gives_again() {
    let folder = Folder::new("capped");
    let cap = SpendCap::new(Cache::new(MockBackend::new().cost_per_image(0.4), &folder.0), 1.0, "USD");
    for _ in 0..5 {
        generate(&cap, seeded(1)).await.unwrap();
    }
    assert!((cap.spent().amount - 0.4).abs() < 1e-9, "{:?}", cap.spent());
}

#[tokio::test]
async fn a_spend_cap_in_another_currency_refuses() {
    let error = generate(&SpendCap::new(MockBackend::new(), 1.0, "EUR"), spec()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}
