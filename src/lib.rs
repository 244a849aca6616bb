//! Typed Rust SDK for making and editing images with Stable Diffusion 3.5 Medium.

pub mod backend;
mod client;
mod error;
pub mod images;
pub mod remote;

pub use backend::Backend;
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use images::{Address, Image, Images, Inline};
pub use images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance};
