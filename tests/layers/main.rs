//! The layers, tested with a mock backend.

// Helper functions are not marked as tests, but a panic in one fails a test, too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod cache;
mod defaults;
mod fallback;
mod limit;
mod retry;
mod spend_cap;
mod variant;

use std::time::Duration;

use lumenfall::backend::{Backend, Content, Cost, EditSpec, GenerateSpec, Output, RequestContext};
use lumenfall::layers::{Cache, Defaults, Fallback, Limit, Retry, SpendCap};
use lumenfall::testing::{MockBackend, PIXEL, conformance};
use lumenfall::{Error, ErrorKind, Input, RetryPolicy};

const MODEL: &str = "stable-diffusion-3.5-medium";

fn spec() -> GenerateSpec {
    GenerateSpec::new(MODEL, "a lighthouse")
}

fn seeded(seed: u64) -> GenerateSpec {
    let mut spec = spec();
    spec.options.sampling.seed = Some(seed);
    spec
}

fn edit() -> EditSpec {
    EditSpec::new(MODEL, Input::bytes(PIXEL))
}

async fn generate(backend: &impl Backend, spec: GenerateSpec) -> Result<Output, Error> {
    backend.send(spec.into(), RequestContext::default()).await
}

/// Returns a context whose deadline is `time` ahead on tokio's clock, which tests can pause.
fn deadline_in(time: Duration) -> RequestContext {
    let mut context = RequestContext::default();
    context.deadline = Some((tokio::time::Instant::now() + time).into_std());
    context
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "an error for a test")
}

fn billed(kind: ErrorKind) -> Error {
    error(kind).with_maybe_billed(true)
}

/// An error that may be billed in part although no image was generated.
fn exhausted() -> Error {
    billed(ErrorKind::Upstream).with_nothing_made()
}

#[tokio::test(start_paused = true)]
async fn every_layer_conforms_to_the_backend_trait() {
    let folder = tempfile::tempdir().unwrap();
    let mock = MockBackend::new;
    let backends: [(&str, Box<dyn Backend>); 8] = [
        ("mock", Box::new(mock())),
        ("fallback", Box::new(Fallback::new(mock().without_edits()).then(mock()))),
        ("limit", Box::new(Limit::new(mock()).concurrency(2).rate(10, Duration::from_secs(1)))),
        ("spend cap", Box::new(SpendCap::new(mock(), Cost::new(1000.0, "USD")))),
        ("retry", Box::new(Retry::new(mock(), RetryPolicy::default()))),
        ("cache", Box::new(Cache::new(mock(), folder.path()))),
        ("defaults", Box::new(Defaults::new(mock()).timeout(Duration::from_secs(60)))),
        ("without edits", Box::new(mock().without_edits())),
    ];
    for (name, backend) in backends {
        for generate in [spec(), seeded(1)] {
            assert_eq!(conformance(&*backend, generate, edit()).await, Vec::<String>::new(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn urls_and_bills_of_failed_attempts_are_kept() {
    let undelivered =
        |name: &str| billed(ErrorKind::Timeout).with_unfetched_urls([format!("https://a.example/{name}?sig=canary")]);
    let mock = MockBackend::new();
    // Only `Retry` counts attempts: those of a fallback go to different backends.
    let layers: [(u32, Box<dyn Backend>); 2] = [
        (2, Box::new(Retry::new(mock.clone(), RetryPolicy::default().may_bill_twice().max_retries(1)))),
        (0, Box::new(Fallback::new(mock.clone()).then(mock.clone()).even_if_billed())),
    ];
    for (attempts, layer) in layers {
        mock.fail_next(undelivered("1"));
        let output = layer.send(spec().into(), RequestContext::default()).await.unwrap();
        let contents: Vec<_> = output.images.iter().map(|image| &image.content).collect();
        assert!(matches!(contents[..], [Content::Bytes(_), Content::Unfetched(_)]), "{contents:?}");
        assert_eq!(output.metadata.lost_bills, 1);
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");

        for (last, billed) in [(undelivered("2"), 2), (error(ErrorKind::RateLimited), 1)] {
            let kind = last.kind();
            mock.fail_next(undelivered("1"));
            mock.fail_next(last);
            let error = layer.send(spec().into(), RequestContext::default()).await.unwrap_err();
            assert_eq!((error.kind(), error.maybe_billed_attempts(), error.made_nothing()), (kind, billed, false));
            assert_eq!((error.unfetched_urls().len() as u32, error.attempts()), (billed, attempts));
        }
    }
}
