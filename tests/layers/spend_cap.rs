//! A limit on spending.

use std::time::Duration;

use lumenfall::backend::{Backend, Cost};
use lumenfall::layers::{Fallback, Retry, SpendCap};
use lumenfall::testing::MockBackend;
use lumenfall::{ErrorKind, RetryPolicy};

use crate::variant::Variant;
use crate::{billed, error, generate, spec};

#[track_caller]
fn assert_spent<B: Backend>(cap: &SpendCap<B>, expected: f64) {
    assert!((cap.spent().amount() - expected).abs() < 1e-9, "spent {:?}, expected {expected}", cap.spent());
}

#[tokio::test]
async fn requests_beyond_the_cap_are_not_sent() {
    let mock = MockBackend::new().cost_per_image(0.4);
    let cap = SpendCap::new(mock.clone(), Cost::new(1.0, "usd"));
    generate(&cap, spec()).await.unwrap();
    generate(&cap, spec()).await.unwrap();
    let error = generate(&cap, spec()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::InsufficientBalance, Some("SPEND_CAP")));
    assert!(!error.maybe_billed());
    assert_eq!(mock.requests().len(), 2);
    assert_spent(&cap, 0.8);
    assert!((cap.remaining().amount() - 0.2).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_cannot_exceed_the_cap_together() {
    let mock = MockBackend::new().cost_per_image(0.4).delay(Duration::from_millis(50));
    let cap = SpendCap::new(mock.clone(), Cost::new(1.0, "USD"));
    let results = tokio::join!(generate(&cap, spec()), generate(&cap, spec()), generate(&cap, spec()));
    assert_eq!([results.0, results.1, results.2].iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn sums_beyond_the_largest_amount_saturate() {
    let most = || Cost::from_micros(i64::MAX, "USD");
    let mock = MockBackend::new().delay(Duration::from_millis(50)).cost_per_image(f64::MAX);
    let cap = SpendCap::new(mock, most()).per_image(most());
    let (a, b, c) = tokio::join!(generate(&cap, spec()), generate(&cap, spec()), generate(&cap, spec()));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!((cap.spent(), cap.remaining().micros), (most(), 0));
}

#[tokio::test(start_paused = true)]
async fn the_actual_cost_and_every_attempt_that_may_have_been_billed_are_counted() {
    let mock = MockBackend::new().cost_per_image(0.1);
    let retry = Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(2));
    let cap = SpendCap::new(retry, Cost::new(10.0, "USD")).per_image(Cost::new(1.0, "USD"));
    let (lost, limited) = (|| billed(ErrorKind::Timeout), || error(ErrorKind::RateLimited));
    for (failures, succeeds, cost) in [
        (vec![], true, 0.1),
        (vec![lost()], true, 1.1),
        (vec![limited()], true, 0.1),
        (vec![lost(), lost(), lost()], false, 3.0),
        (vec![limited(), lost(), limited()], false, 1.0),
        (vec![error(ErrorKind::ContentPolicy)], false, 0.0),
    ] {
        let before = cap.spent().amount();
        failures.into_iter().for_each(|failure| mock.fail_next(failure));
        assert_eq!(generate(&cap, spec()).await.is_ok(), succeeds);
        assert_spent(&cap, before + cost);
    }
}

#[tokio::test]
async fn a_fallback_reserves_its_highest_cost_and_counts_the_actual_one() {
    let first = MockBackend::new().cost_per_image(0.5);
    let fallback = Fallback::new(first).then(MockBackend::new().cost_per_image(1.0));
    let cap = SpendCap::new(fallback, Cost::new(1.2, "USD"));
    generate(&cap, spec()).await.unwrap();
    assert_spent(&cap, 0.5);
    assert_eq!(generate(&cap, spec()).await.unwrap_err().code(), Some("SPEND_CAP"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_counts_as_spent() {
    let cap = SpendCap::new(MockBackend::new().delay(Duration::from_secs(60)), Cost::new(1.0, "USD"))
        .per_image(Cost::new(0.6, "USD"));
    assert!(tokio::time::timeout(Duration::from_millis(20), generate(&cap, spec())).await.is_err());
    assert_spent(&cap, 0.6);
    assert_eq!(generate(&cap, spec()).await.unwrap_err().code(), Some("SPEND_CAP"));
}

#[tokio::test]
async fn an_estimate_that_may_have_been_billed_uses_up_the_cap() {
    let mock = MockBackend::new();
    let backend = Variant { mock: mock.clone(), estimate_fails_billed: Some(true), ..Variant::default() };
    let cap = SpendCap::new(backend, Cost::new(5.0, "USD"));
    assert!(generate(&cap, spec()).await.unwrap_err().maybe_billed());
    assert_eq!((cap.spent().amount(), cap.remaining().amount(), mock.requests().len()), (5.0, 0.0, 0));
}

#[tokio::test]
async fn an_amount_in_another_currency_is_rejected() {
    let mock = MockBackend::new();
    let (dollars, euros) = (|amount| Cost::new(amount, "USD"), |amount| Cost::new(amount, "EUR"));
    for (cap, part) in [
        (SpendCap::new(mock.clone(), euros(1.0)), "the estimate of the backend is in USD, but the spend cap is in EUR"),
        (SpendCap::new(mock.clone(), dollars(1.0)).per_image(euros(0.1)), "`SpendCap::per_image(..)` is in EUR"),
        (SpendCap::new(mock.clone(), dollars(1.0)).starting_at(euros(0.1)), "`SpendCap::starting_at(..)` is in EUR"),
    ] {
        let error = generate(&cap, spec()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(mock.requests().len(), 0);
    // Nothing is the same in every currency.
    let fresh = SpendCap::new(mock, euros(1.0)).per_image(euros(0.1)).starting_at(Cost::nothing());
    generate(&fresh, spec()).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_started_again_continues_with_the_amount_that_it_stored() {
    let mock = MockBackend::new().cost_per_image(0.4);
    let before = SpendCap::new(mock.clone(), Cost::new(1.0, "USD"));
    generate(&before, spec()).await.unwrap();
    let stored = serde_json::to_string(&before.spent()).unwrap();

    let cap = SpendCap::new(mock, Cost::new(1.0, "USD")).starting_at(serde_json::from_str(&stored).unwrap());
    assert_eq!((cap.spent().micros, cap.remaining().micros), (400_000, 600_000));
    generate(&cap, spec()).await.unwrap();
    assert_eq!(generate(&cap, spec()).await.unwrap_err().code(), Some("SPEND_CAP"));
    assert_eq!(cap.spent().micros, 800_000);
}

/// In floating-point numbers, ten times 0.1 is less than 1, and three times 0.1 is more than 0.3.
#[tokio::test]
async fn the_cap_can_be_spent_to_the_last_micro_unit() {
    for (price, cap, requests) in [(0.1, 1.0, 10), (0.1, 0.3, 3), (0.1, 0.299_999, 2), (0.000_001, 0.000_003, 3)] {
        let layer = SpendCap::new(MockBackend::new().cost_per_image(price), Cost::new(cap, "USD"));
        for _ in 0..requests {
            generate(&layer, spec()).await.unwrap();
        }
        assert_eq!(generate(&layer, spec()).await.unwrap_err().code(), Some("SPEND_CAP"), "{price} of {cap}");
    }
}
