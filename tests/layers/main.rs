//! Layers around a backend that makes nothing, and the conformance of all of them.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cache;
mod changed;
mod fallback;
mod limit;
mod retry;
mod spend_cap;

use std::path::PathBuf;
use std::time::Duration;

use lumenfall::backend::{Backend, Content, EditSpec, GenerateSpec, Output, RequestContext};
use lumenfall::layers::{Cache, Fallback, Limit, Retry, SpendCap};
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
    backend.generate(spec, RequestContext::default()).await
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "made for a test")
}

/// A folder of its own that vanishes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lumenfall-layers-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(&self.0).into_iter().flatten();
        folders
            .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn every_layer_keeps_the_promises_of_a_backend() {
    let folder = Folder::new("conformance");
    let mock = MockBackend::new;
    let backends: [(&str, Box<dyn Backend>); 7] = [
        ("mock", Box::new(mock())),
        ("fallback", Box::new(Fallback::new(mock().without_edits()).then(mock()))),
        ("limit", Box::new(Limit::new(mock()).concurrency(2).rate(1000, Duration::from_secs(1)))),
        ("spend cap", Box::new(SpendCap::new(mock(), 1000.0, "USD"))),
        ("retry", Box::new(Retry::new(mock(), RetryPolicy::default()))),
        ("cache", Box::new(Cache::new(mock(), &folder.0))),
        ("without edits", Box::new(mock().without_edits())),
    ];
    for (name, backend) in backends {
        for generate in [spec(), seeded(1)] {
            assert_eq!(conformance(&*backend, generate, edit()).await, Vec::<String>::new(), "{name}");
        }
    }
}

#[tokio::test]
async fn what_an_earlier_try_made_and_left_at_an_address_is_not_forgotten() {
    let left = |name: &str| {
        let billed = error(ErrorKind::Timeout).with_maybe_billed(true);
        billed.with_addresses([format!("https://a.example/{name}?sig=canary")])
    };
    let mock = MockBackend::new();
    let policy = || RetryPolicy::default().may_bill_twice().max_retries(1);
    let layers: [Box<dyn Backend>; 2] = [
        Box::new(Retry::new(mock.clone(), policy())),
        Box::new(Fallback::new(mock.clone()).then(mock.clone()).even_if_billed()),
    ];
    for layer in layers {
        mock.fail_next(left("1"));
        let output = layer.generate(spec(), RequestContext::default()).await.unwrap();
        let contents: Vec<_> = output.images.iter().map(|image| &image.content).collect();
        assert!(matches!(contents[..], [Content::Bytes(_), Content::Unfetched(_)]), "{contents:?}");
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");

        mock.fail_next(left("1"));
        mock.fail_next(left("2"));
        let error = layer.generate(spec(), RequestContext::default()).await.unwrap_err();
        assert_eq!((error.addresses().len(), error.maybe_billed_tries()), (2, 2));
    }
}
