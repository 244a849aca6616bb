//! Typed requests and their results.

mod expiry;
mod result;
pub(crate) mod save;
pub mod typed;

pub use crate::values::{
    AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance,
};
#[cfg(any(test, feature = "_fuzz"))]
pub(crate) use expiry::of_url as expiry_of_url;
pub use result::{Any, Delivery, HasBytes, HasUrl, Hosted, Image, Images, Inline, Saved};
