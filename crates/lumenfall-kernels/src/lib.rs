//! Computations on slices of f32 values, parallel and vectorized, for `lumenfall-diffusion`. The interface may change with
//! every version of it.
//!
//! A sequence is `[tokens, width]`, an image is `[height, width, channels]`. Channels come last so that the channels of a
//! pixel are a contiguous row for matrix products. [`Values`] holds a weight in the format of its file. Tests compare each
//! kernel with plain loops ([`mod@reference`]).
//!
//! The results do not depend on the number of threads: the size of each thread's share of the work is fixed, and partial
//! sums are added in a fixed order.
//!
//! The lengths of slices must match, which `lumenfall-diffusion` checks. Otherwise a function panics, or leaves values out.
//!
//! No public function takes a closure: a generic function would be compiled with the options of the crate that calls it.

/// Computes an expression with the vector instructions that the machine has.
///
/// The expression must be inlined into the function that pulp compiles for these instructions. Otherwise it is compiled for
/// the oldest machine of the target.
macro_rules! vectorized {
    ($compute:expr) => {
        pulp::Arch::new().dispatch($crate::Vectorized(
            #[inline(always)]
            || $compute,
        ))
    };
}

#[cfg(target_endian = "big")]
compile_error!("files of weights are little-endian, and values of f32 are used as they are in the file");

mod activation;
mod attention;
mod conv;
mod elementwise;
mod format;
mod gemm;
mod group_norm;
mod linear;
mod math;
mod norm;
mod permute;
pub mod reference;
mod source;
mod transpose;
mod winograd;

pub use activation::{Activation, bias_activation};
pub use attention::{Mask, QUERIES as ATTENTION_QUERIES, Sequence, attention};
pub use conv::{ConvShape, Convolution};
pub use elementwise::{add, gated_residual, multiply, subtract};
pub use format::{Format, RowFactors, Values};
pub use gemm::{Matrix, Threads, Write, matmul};
pub use group_norm::{Affine, apply, group_statistics};
pub use linear::{Rows, Weight, linear};
pub use norm::{layer_norm, rms_norm};
pub use permute::permute;
pub use source::{Image, Source};
pub use winograd::buffer_bytes as convolution_bytes;

/// A function for [`vectorized`]. A closure alone would be called through an adapter, which is not inlined.
struct Vectorized<F>(F);

impl<T, F: FnMut() -> T> pulp::NullaryFnOnce for Vectorized<F> {
    type Output = T;

    #[inline(always)]
    fn call(mut self) -> T {
        (self.0)()
    }
}
