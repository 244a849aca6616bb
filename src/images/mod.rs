//! Requests and results: the hand-written half of the typed API.

mod format;
mod input;
mod layout;
mod sampling;

pub use format::{OutputFormat, ResponseFormat};
pub use input::Input;
pub use layout::{AspectRatio, Resolution, Size};
pub use sampling::{Sampling, SkipLayerGuidance};
