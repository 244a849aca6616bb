//! The layers of the models. A layer holds its weights in the format of the file; tensors hold f32 values.
//!
//! The models are written against these layers only.

mod attention;
mod conv;
#[cfg(feature = "gpu")]
mod conv_on_gpu;
mod elementwise;
mod embedding;
mod linear;
mod norm;
#[cfg(test)]
mod tests;

pub(crate) use attention::{Mask, attention, attention_of_each};
pub(crate) use conv::Conv2d;
pub(crate) use elementwise::{activate, add, gated_residual, multiply, subtract};
pub(crate) use embedding::embed;
pub(crate) use linear::Linear;
pub(crate) use lumenfall_kernels::Activation;
pub(crate) use norm::{GroupNorm, LayerNorm, RmsNorm, norm_modulate};
