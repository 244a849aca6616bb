//! So many at a time, and within a period.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lumenfall::ErrorKind;
use lumenfall::backend::{Backend, RequestContext};
use lumenfall::layers::Limit;
use lumenfall::testing::MockBackend;

use crate::{generate, spec};

#[tokio::test]
async fn a_limit_runs_so_many_at_a_time_and_all_in_the_end() {
    let mock = MockBackend::new().delay(Duration::from_millis(20));
    let limit = Limit::new(mock.clone()).concurrency(3);
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let limit = limit.clone();
            tokio::spawn(async move { generate(&limit, spec()).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!((mock.requests().len(), mock.peak()), (12, 3));
}

#[tokio::test]
async fn a_rate_holds_within_every_period() {
    let limit = Limit::new(MockBackend::new()).rate(2, Duration::from_millis(400));
    let started = Instant::now();
    generate(&limit, spec()).await.unwrap();
    // Periods do not begin at full ones.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for at in [300, 400, 700, 800] {
        generate(&limit, spec()).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(at), "{at}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_or_forgotten_while_it_waits_holds_up_no_other() {
    let limit = Limit::new(MockBackend::new()).concurrency(1).rate(1, Duration::from_millis(300));
    let started = Instant::now();
    generate(&limit, spec()).await.unwrap();
    let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(generate(&limit, spec()))).collect();
    for call in &mut waiting {
        assert!(call.now_or_never().is_none());
    }
    // The first is not asked again, the last one is.
    let last = waiting.pop().unwrap();
    waiting.drain(1..);
    let mut context = RequestContext::default();
    context.deadline = Some(started + Duration::from_secs(4));
    let (last, new) = tokio::join!(last, limit.generate(spec(), context));
    assert!(last.is_ok() && new.is_ok());
    waiting.remove(0).await.unwrap();
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(900) && elapsed < Duration::from_secs(4), "{elapsed:?}");
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_sends_nothing() {
    let mock = MockBackend::new().delay(Duration::from_secs(1));
    let mut context = RequestContext::default();
    let rate = Limit::new(mock.clone()).rate(1, Duration::from_secs(60));
    generate(&rate, spec()).await.unwrap();
    context.deadline = Some(Instant::now() + Duration::from_secs(5));
    let started = Instant::now();
    let error = rate.generate(spec(), context.clone()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, false));
    assert!(started.elapsed() < Duration::from_secs(1), "it does not wait in vain");

    let one = Limit::new(mock.clone()).concurrency(1);
    context.deadline = Some(Instant::now() + Duration::from_millis(50));
    let (first, second) = tokio::join!(generate(&one, spec()), one.generate(spec(), context));
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(mock.requests().len(), 2);
}
