//! The local backend behind the typed calls, on the tiny random model that the reference values were made with.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]
#![cfg(feature = "local")]

mod bad_input;
mod demo;
mod judge;
mod runs;

use std::path::PathBuf;

use lumenfall::Client;

/// A model of the real architecture whose weights are random: it paints noise, quickly.
fn random_model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("crates/lumenfall-diffusion/tests/golden/model")
}

fn client() -> Client {
    Client::local(random_model()).unwrap()
}
