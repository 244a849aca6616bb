//! Computations on slices of f32 values, parallel and vectorized.
//!
//! A sequence is `[tokens, width]`, an image is `[height, width, channels]`. Channels come last so that the channels of a
//! pixel are a contiguous row for matrix products. Tests compare each kernel with plain loops (`reference`).
//!
//! The results do not depend on the number of threads: the size of each thread's share of the work is fixed, and partial
//! sums are added in a fixed order.

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
mod winograd;

pub(crate) use activation::{Activation, bias_activation};
pub(crate) use attention::{Mask, Sequence, attention};
pub(crate) use conv::{ConvShape, Convolution};
pub(crate) use elementwise::zip;
pub(crate) use gemm::{Matrix, Threads, Write, matmul};
pub(crate) use group_norm::{Affine, apply, group_statistics};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use source::{Image, Source};
