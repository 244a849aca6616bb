//! Computations on slices of f32 values, parallel and vectorized.
//!
//! A sequence is `[tokens, width]`, an image is `[height, width, channels]`. Channels come last so that the channels of a
//! pixel are a contiguous row for matrix products. Tests compare each kernel with plain loops (`reference`).
//!
//! The results do not depend on the number of threads: the size of each thread's share of the work is fixed, and partial
//! sums are added in a fixed order.

/// Computes an expression with the vector instructions that the machine has.
///
/// The expression must be inlined into the function that pulp compiles for these instructions. Otherwise it is compiled for
/// the oldest machine of the target.
macro_rules! vectorized {
    ($compute:expr) => {
        pulp::Arch::new().dispatch($crate::kernels::Vectorized(
            #[inline(always)]
            || $compute,
        ))
    };
}
pub(crate) use vectorized;

mod activation;
mod attention;
mod conv;
mod elementwise;
mod gemm;
mod group_norm;
mod math;
mod norm;
#[cfg(test)]
pub(crate) mod reference;
mod source;
mod transpose;
mod winograd;

pub(crate) use activation::{Activation, bias_activation};
pub(crate) use attention::{Mask, Sequence, attention};
pub(crate) use conv::{ConvShape, Convolution};
pub(crate) use elementwise::zip;
pub(crate) use gemm::{Matrix, Threads, Write, matmul, matmul_in_parts};
pub(crate) use group_norm::{Affine, apply, group_statistics};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use source::{Image, Source};
pub(crate) use transpose::transpose_part;

/// A function for [`vectorized`]. A closure alone would be called through an adapter, which is not inlined.
pub(crate) struct Vectorized<F>(pub(crate) F);

impl<T, F: FnMut() -> T> pulp::NullaryFnOnce for Vectorized<F> {
    type Output = T;

    #[inline(always)]
    fn call(mut self) -> T {
        (self.0)()
    }
}
