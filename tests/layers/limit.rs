//! Limits on concurrency and request rate.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, future};
use lumenfall::ErrorKind;
use lumenfall::backend::{Backend, Progress, RequestContext};
use lumenfall::layers::Limit;
use lumenfall::testing::MockBackend;
use tokio::time::Instant;

use crate::{deadline_in, generate, spec};

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_and_all_requests_run() {
    let mock = MockBackend::new().delay(Duration::from_millis(20));
    let limit = Limit::new(mock.clone()).concurrency(3);
    let clones: Vec<_> = (0..12).map(|_| limit.clone()).collect();
    future::try_join_all(clones.iter().map(|limit| generate(limit, spec()))).await.unwrap();
    assert_eq!((mock.requests().len(), mock.peak()), (12, 3));
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_limited_in_every_interval() {
    let limit = Limit::new(MockBackend::new()).rate(2, Duration::from_millis(400));
    let started = Instant::now();
    let mut starts = Vec::new();
    for pause in [0, 300, 0, 0, 0] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        generate(&limit, spec()).await.unwrap();
        starts.push(started.elapsed().as_millis() / 100);
    }
    assert_eq!(starts, [0, 3, 4, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_to_wait_reports_once_that_it_is_queued() {
    let mock = || MockBackend::new().delay(Duration::from_millis(20));
    for limit in [
        Limit::new(mock()).concurrency(1),
        Limit::new(mock()).rate(1, Duration::from_millis(100)),
        Limit::new(mock()).concurrency(1).rate(1, Duration::from_millis(100)),
    ] {
        let send = || async {
            let (sender, receiver) = std::sync::mpsc::channel();
            let mut context = RequestContext::default();
            context.progress = Some(Arc::new(move |event| sender.send(event).unwrap_or_default()));
            limit.send(spec().into(), context).await.unwrap();
            receiver.try_iter().collect::<Vec<_>>()
        };
        assert_eq!(tokio::join!(send(), send()), (vec![], vec![Progress::Queued { position: None }]));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_and_unpolled_requests_do_not_block_others() {
    let limit = Limit::new(MockBackend::new()).concurrency(1).rate(1, Duration::from_millis(300));
    let started = Instant::now();
    generate(&limit, spec()).await.unwrap();
    let mut waiting: Vec<_> = (0..20).map(|_| Box::pin(generate(&limit, spec()))).collect();
    for request in &mut waiting {
        assert!(request.now_or_never().is_none());
    }
    // The first future is not polled for a while, the last one is polled, and all others are dropped.
    let last = waiting.pop().unwrap();
    waiting.drain(1..);
    let (last, new) = tokio::join!(last, limit.send(spec().into(), deadline_in(Duration::from_secs(4))));
    assert!(last.is_ok() && new.is_ok());
    waiting.remove(0).await.unwrap();
    assert_eq!(started.elapsed().as_millis() / 100, 9);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_wait_beyond_its_deadline_is_not_sent() {
    let mock = MockBackend::new().delay(Duration::from_secs(1));
    let rate = Limit::new(mock.clone()).rate(1, Duration::from_secs(60));
    let concurrency = Limit::new(mock.clone()).concurrency(1);
    let started = Instant::now();
    let context = deadline_in(Duration::from_millis(50));
    let (first, second) = tokio::join!(generate(&concurrency, spec()), concurrency.send(spec().into(), context));
    first.unwrap();
    generate(&rate, spec()).await.unwrap();
    let sent = started.elapsed();
    let third = rate.send(spec().into(), deadline_in(Duration::from_secs(5))).await;
    assert_eq!(started.elapsed(), sent, "the third request fails immediately");
    for error in [second.unwrap_err(), third.unwrap_err()] {
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, false));
    }
    assert_eq!(mock.requests().len(), 2);
}
