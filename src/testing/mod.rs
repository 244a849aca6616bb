//! Test doubles for programs that use this crate, and a conformance suite for backends. Feature `testing`.
//!
//! - [`MockBackend`] is a backend that returns one-pixel images without any HTTP.
//! - [`MockGateway`] is an HTTP server that imitates the Lumenfall gateway, including its faults.
//! - [`conformance`](conformance()) checks whether a backend keeps the promises of [`Backend`](crate::Backend).

mod conformance;
mod gateway;
mod mock_backend;
mod pixel;

pub use conformance::conformance;
pub use gateway::{Fault, MockGateway, Received};
pub use mock_backend::MockBackend;
pub use pixel::PIXEL;
