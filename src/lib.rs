//! Typed Rust SDK for making and editing images with Stable Diffusion 3.5 Medium.

pub mod backend;
mod client;
mod error;
pub mod generated;
pub mod images;
#[cfg(feature = "local")]
pub mod local;
pub mod remote;

pub use backend::Backend;
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use generated::stable_diffusion_3_5_medium;
pub use generated::stable_diffusion_3_5_medium::output_format::{Avif, Gif, Jpeg, Png, Webp};
pub use generated::stable_diffusion_3_5_medium::providers::{Fal, Replicate};
pub use images::{Address, Image, Images, Inline};
pub use images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance};

// Generated code names this crate by its own name, here as in a user's crate.
extern crate self as lumenfall;
