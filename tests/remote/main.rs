//! The remote backends against servers on the loopback interface. Each file tests the promises that its name says.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod account;
mod calls;
mod configuration;
#[cfg(feature = "testing")]
mod conformance;
mod connections;
mod deadlines;
mod downloads;
mod estimates;
mod fal;
mod faults;
mod http2;
mod inputs;
mod jobs;
mod recorded;
mod replicate;
mod requests;
mod responses;
mod retries;
mod saving;
mod servers;
mod support;
mod unsupported;
