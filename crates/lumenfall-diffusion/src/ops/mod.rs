//! The operations that the models are made of, each in two forms.
//!
//! - **Composed** of candle's own operations: runs on any device, and is the reference.
//! - **Kernel**: fused and parallel, for f32 on the processor.
//!
//! The tests hold the kernels against the composed forms, and both against diffusers. Tensors have no
//! batch dimension: a sequence is `[tokens, width]`, a picture is `[height, width, channels]`
//! (channels last, so that a pixel's channels are one contiguous row for the matrix product).
//!
//! No kernel's result depends on the number of threads: work is cut into pieces of a fixed size, and
//! partial sums are added in a fixed order.

mod activation;
mod attention;
mod conv;
mod gemm;
mod group_norm;
mod linear;
mod math;
mod norm;
mod residual;
#[cfg(test)]
mod tests;
mod view;

use candle_core::Device;

pub(crate) use activation::Activation;
pub(crate) use attention::Mask;
pub(crate) use conv::Conv2d;
pub(crate) use group_norm::GroupNorm;
pub(crate) use linear::Linear;

/// Which form of the operations to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// Composed of candle's operations, for any device.
    Composed,
    /// The fused kernels for the processor.
    Kernel,
}

impl Ops {
    /// The fastest form that runs on `device`.
    pub fn for_device(device: &Device) -> Self {
        if device.is_cpu() { Self::Kernel } else { Self::Composed }
    }
}
