//! For tests: a backend that makes nothing, and the suite that every backend passes. Feature `testing`.

mod conformance;
mod mock;

pub use conformance::conformance;
pub use mock::{MockBackend, PIXEL};
