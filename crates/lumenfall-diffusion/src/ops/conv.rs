//! Convolution and upsampling of channels-last images.

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::implementation::Ops;
use super::view::{with_rows, with_values};
use crate::weights::Scope;

/// The number of output pixels that one task computes: large enough to make packing the weights cheap, small enough that
/// input and output fit into the cache.
const STRIPE_PIXELS: usize = 1024;

/// A convolution with a square kernel.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    /// `[kernel, kernel, in, out]`: one matrix per kernel element, so that a kernel row is one tall matrix.
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
    kernel: usize,
    stride: usize,
    padding: Padding,
}

/// The number of zero rows and columns around the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Padding {
    before: usize,
    after: usize,
}

impl Conv2d {
    /// Reads `weight` `[out, in, kernel, kernel]` and `bias` of a convolution that preserves the image's size.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize, kernel: usize) -> crate::error::Result<Self> {
        let padding = Padding { before: kernel / 2, after: kernel / 2 };
        Self::load_with(scope, inputs, outputs, kernel, 1, padding)
    }

    /// Reads a 3×3 convolution that halves the image's size, with padding only at the right and at the bottom.
    pub(crate) fn load_downsample(scope: &Scope<'_>, channels: usize) -> crate::error::Result<Self> {
        Self::load_with(scope, channels, channels, 3, 2, Padding { before: 0, after: 1 })
    }

    fn load_with(
        scope: &Scope<'_>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> crate::error::Result<Self> {
        let weight = scope.tensor("weight", &[outputs, inputs, kernel, kernel])?;
        Ok(Self {
            weight: weight.permute((2, 3, 1, 0))?.contiguous()?,
            bias: scope.tensor("bias", &[outputs])?,
            kernel,
            stride,
            padding,
        })
    }
}

impl Ops {
    /// Convolves `[height, width, in]` to `[new height, new width, out]`.
    pub(crate) fn conv2d(self, x: &Tensor, conv: &Conv2d) -> Result<Tensor> {
        let (height, width, inputs) = x.dims3()?;
        let (_, _, expected, _) = conv.weight.dims4()?;
        if inputs != expected {
            bail!("a convolution of {expected} channels received {inputs} channels");
        }
        match self {
            Self::Reference => {
                let Padding { before, after } = conv.padding;
                // [height, width, channels] -> [1, channels, height, width]
                let x = x.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()?;
                let x = x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?;
                let weight = conv.weight.permute((3, 2, 0, 1))?.contiguous()?;
                let y = x.conv2d(&weight, 0, conv.stride, 1, 1)?;
                y.squeeze(0)?.permute((1, 2, 0))?.contiguous()?.broadcast_add(&conv.bias)
            }
            Self::Fused => with_rows(&x.contiguous()?, |pixels| {
                with_values(&conv.weight, |weight| {
                    with_values(&conv.bias, |bias| {
                        let image = Image { data: pixels.data, height, width, channels: inputs };
                        let (out, height, width) = fused(image, conv, weight, bias);
                        Tensor::from_vec(out, (height, width, bias.len()), x.device())
                    })
                })
            }),
        }
    }

    /// Doubles an image's width and height by repeating each pixel.
    pub(crate) fn upsample(self, x: &Tensor) -> Result<Tensor> {
        let (height, width, channels) = x.dims3()?;
        match self {
            Self::Reference => {
                let x = x.contiguous()?.reshape((height, 1, width, 1, channels))?;
                x.broadcast_as((height, 2, width, 2, channels))?.contiguous()?.reshape((
                    2 * height,
                    2 * width,
                    channels,
                ))
            }
            Self::Fused => with_values(x, |pixels| {
                let mut out = vec![0f32; 4 * pixels.len()];
                let row = width * channels;
                out.par_chunks_mut(4 * row).zip(pixels.par_chunks(row)).for_each(|(out, pixels)| {
                    let (upper, lower) = out.split_at_mut(2 * row);
                    for (twice, pixel) in upper.chunks_exact_mut(2 * channels).zip(pixels.chunks_exact(channels)) {
                        let (left, right) = twice.split_at_mut(channels);
                        left.copy_from_slice(pixel);
                        right.copy_from_slice(pixel);
                    }
                    lower.copy_from_slice(upper);
                });
                Tensor::from_vec(out, (2 * height, 2 * width, channels), x.device())
            }),
        }
    }
}

#[derive(Clone, Copy)]
struct Image<'a> {
    data: &'a [f32],
    height: usize,
    width: usize,
    channels: usize,
}

/// Processes stripes of output rows in parallel. Each task copies its input rows into a padded buffer, where the inputs of
/// a kernel row are contiguous. A kernel row is then one matrix product whose left matrix is the buffer read with
/// overlapping rows, so im2col needs no copy.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
fn fused(x: Image<'_>, conv: &Conv2d, weight: &[f32], bias: &[f32]) -> (Vec<f32>, usize, usize) {
    let Conv2d { kernel, stride, padding, .. } = *conv;
    let outputs = bias.len();
    let padded_width = x.width + padding.before + padding.after;
    let out_height = (x.height + padding.before + padding.after - kernel) / stride + 1;
    let out_width = (padded_width - kernel) / stride + 1;
    let stripe_rows = STRIPE_PIXELS.div_ceil(out_width);
    let taps = kernel * x.channels;
    let mut out = vec![0f32; out_height * out_width * outputs];
    out.par_chunks_mut(stripe_rows * out_width * outputs).enumerate().for_each(|(stripe, out)| {
        let first = stripe * stripe_rows;
        let rows = out.len() / (out_width * outputs);
        let input = padded_rows(x, padding, first * stride, (rows - 1) * stride + kernel);
        let row_length = padded_width * x.channels;
        if stride == 1 {
            // One product computes all rows of the stripe. Its columns that cross the end of a row are discarded.
            let pixels = (rows - 1) * padded_width + out_width;
            let mut wide = vec![0f32; pixels * outputs];
            for tap_row in 0..kernel {
                let a = Matrix::row_major(&input[tap_row * row_length..], pixels, taps, x.channels);
                let b = Matrix::row_major(&weight[tap_row * taps * outputs..], taps, outputs, outputs);
                let write = if tap_row == 0 { Write::Replace } else { Write::Add };
                matmul(&mut wide, outputs, write, 1.0, a, b, Threads::One);
            }
            for (to, from) in out.chunks_exact_mut(out_width * outputs).zip(wide.chunks(padded_width * outputs)) {
                to.copy_from_slice(&from[..out_width * outputs]);
            }
        } else {
            for (row, out) in out.chunks_exact_mut(out_width * outputs).enumerate() {
                for tap_row in 0..kernel {
                    let start = (row * stride + tap_row) * row_length;
                    let a = Matrix::row_major(&input[start..], out_width, taps, stride * x.channels);
                    let b = Matrix::row_major(&weight[tap_row * taps * outputs..], taps, outputs, outputs);
                    let write = if tap_row == 0 { Write::Replace } else { Write::Add };
                    matmul(out, outputs, write, 1.0, a, b, Threads::One);
                }
            }
        }
        for pixel in out.chunks_exact_mut(outputs) {
            pixel.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
        }
    });
    (out, out_height, out_width)
}

/// Copies `count` rows of the padded image, starting at row `first`.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
fn padded_rows(x: Image<'_>, padding: Padding, first: usize, count: usize) -> Vec<f32> {
    let padded = (x.width + padding.before + padding.after) * x.channels;
    let row = x.width * x.channels;
    let mut input = vec![0f32; count * padded];
    for (index, to) in input.chunks_exact_mut(padded).enumerate() {
        let y = first + index;
        if y >= padding.before && y < padding.before + x.height {
            let from = &x.data[(y - padding.before) * row..][..row];
            to[padding.before * x.channels..][..row].copy_from_slice(from);
        }
    }
    input
}
