//! For tests without a key: a backend and a gateway that make nothing, and the suite that every backend
//! passes. Feature `testing`.

mod conformance;
mod gateway;
mod http;
mod mock;
mod pixel;

pub use conformance::conformance;
pub use gateway::{Fault, MockGateway, Received};
pub use mock::MockBackend;
pub use pixel::PIXEL;
