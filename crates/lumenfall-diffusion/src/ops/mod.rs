//! The tensor operations of the models, each in two implementations.
//!
//! - **Reference**: composed of candle's operations, for any device.
//! - **Fused**: fused and parallel, for f32 on the CPU.
//!
//! Tests compare the fused operations with the reference, and both with diffusers. Tensors have no batch dimension: a
//! sequence is `[tokens, width]`, an image is `[height, width, channels]`. Channels come last so that the channels of a
//! pixel are a contiguous row for matrix products.
//!
//! The results do not depend on the number of threads: the size of each thread's share of the work is fixed, and partial
//! sums are added in a fixed order.

mod activation;
mod attention;
mod conv;
mod gemm;
mod group_norm;
mod implementation;
mod linear;
mod math;
mod norm;
mod residual;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use activation::Activation;
pub(crate) use attention::Mask;
pub(crate) use conv::Conv2d;
pub(crate) use group_norm::GroupNorm;
pub use implementation::Ops;
pub(crate) use linear::Linear;
