//! The local backend through the typed API.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]
#![cfg(feature = "local")]

mod demo;
mod formats;
mod inpainting;
mod loras;
mod metadata;
mod options;
mod recipes;
mod refusals;
mod requests;
mod schema;
mod tiny_decoder;

use lumenfall::backend::GenerateSpec;
use lumenfall::{Client, Size};

/// Returns a client for a tiny model with random weights.
fn client() -> Client {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden/model");
    Client::local(folder).unwrap()
}

/// Returns a request for a small image with one step, after `change`.
fn spec(change: impl FnOnce(&mut GenerateSpec)) -> GenerateSpec {
    let mut spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a star");
    spec.options.size = Some(Size::Pixels { width: 32, height: 32 });
    spec.options.sampling.steps = Some(1);
    change(&mut spec);
    spec
}
