//! Plain values of a request: sizes, formats, sampling parameters and input images.

mod format;
mod input;
mod path;
mod sampling;
mod size;

pub use format::{OutputFormat, ResponseFormat};
pub use input::Input;
pub(crate) use input::Reading;
pub(crate) use path::expand_home;
pub use sampling::{Sampling, SkipLayerGuidance};
pub(crate) use size::dimensions;
pub use size::{AspectRatio, Resolution, Size};
