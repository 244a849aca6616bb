//! Plain values of a request: sizes, formats, sampling parameters and input images.

mod format;
mod input;
mod sampling;
mod size;

pub use format::{OutputFormat, ResponseFormat};
pub use input::Input;
pub(crate) use input::Reading;
pub use sampling::{Sampling, SkipLayerGuidance};
pub use size::{AspectRatio, Resolution, Size};
