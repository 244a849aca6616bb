//! Requests and results: the hand-written half of the typed API.

mod expiry;
pub(crate) mod fetch;
mod format;
mod input;
mod layout;
mod macros;
mod result;
mod sampling;
pub(crate) mod save;
mod sniff;
pub mod typed;

#[cfg(any(test, fuzzing))]
pub(crate) use expiry::of_address as expiry_of_address;
pub use format::{OutputFormat, ResponseFormat};
pub use input::Input;
pub(crate) use input::Reading;
pub use layout::{AspectRatio, Resolution, Size};
pub use result::{Address, Delivery, HasAddress, HasBytes, Image, Images, Inline};
pub use sampling::{Sampling, SkipLayerGuidance};
