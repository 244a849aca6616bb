//! Typed Rust SDK for making and editing images with Stable Diffusion 3.5 Medium.

pub mod backend;
mod error;
pub mod images;

pub use backend::Backend;
pub use error::{Error, ErrorKind};
pub use images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance};
