//! The remote backend against servers on the loopback interface.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod configuration;
#[cfg(feature = "testing")]
mod conformance;
mod downloads;
mod faults;
mod gateway;
mod http2;
mod inputs;
mod jobs;
mod matrix;
mod providers;
mod requests;
mod retries;
mod secrets;
mod support;
