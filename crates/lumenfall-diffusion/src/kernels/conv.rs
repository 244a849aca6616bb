//! Convolution and upsampling of channels-last images.

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};

/// The number of output pixels that one task computes: large enough to make packing the weights cheap, small enough that
/// input and output fit into the cache.
const STRIPE_PIXELS: usize = 1024;

/// The shape of a convolution with a square kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// The number of zero rows above the image and of zero columns at its left.
    pub(crate) padding_before: usize,
    /// The number of zero rows below the image and of zero columns at its right.
    pub(crate) padding_after: usize,
}

/// An image: rows of pixels of `channels` values.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl ConvShape {
    /// Returns the length of the output's side for a side of the input.
    pub(crate) fn output_side(self, side: usize) -> usize {
        (side + self.padding_before + self.padding_after).saturating_sub(self.kernel) / self.stride + 1
    }
}

/// Doubles an image's width and height by repeating each pixel.
pub(crate) fn upsample(x: Image<'_>) -> Vec<f32> {
    let mut out = vec![0f32; 4 * x.values.len()];
    let (channels, row) = (x.channels.max(1), (x.width * x.channels).max(1));
    out.par_chunks_mut(4 * row).zip(x.values.par_chunks(row)).for_each(|(out, pixels)| {
        let (upper, lower) = out.split_at_mut(2 * row);
        for (twice, pixel) in upper.chunks_exact_mut(2 * channels).zip(pixels.chunks_exact(channels)) {
            let (left, right) = twice.split_at_mut(channels);
            left.copy_from_slice(pixel);
            right.copy_from_slice(pixel);
        }
        lower.copy_from_slice(upper);
    });
    out
}

/// Convolves an image with a weight `[kernel, kernel, in, out]` and a bias `[out]`.
///
/// Processes stripes of output rows in parallel. Each task copies its input rows into a padded buffer, where the inputs of
/// a kernel row are contiguous. A kernel row is then one matrix product whose left matrix is the buffer read with
/// overlapping rows, so im2col needs no copy.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
pub(crate) fn conv2d(x: Image<'_>, shape: ConvShape, weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let ConvShape { kernel, stride, padding_before, padding_after } = shape;
    let outputs = bias.len();
    let padded_width = x.width + padding_before + padding_after;
    let (out_height, out_width) = (shape.output_side(x.height), shape.output_side(x.width));
    let stripe_rows = STRIPE_PIXELS.div_ceil(out_width);
    let taps = kernel * x.channels;
    let mut out = vec![0f32; out_height * out_width * outputs];
    out.par_chunks_mut(stripe_rows * out_width * outputs).enumerate().for_each(|(stripe, out)| {
        let first = stripe * stripe_rows;
        let rows = out.len() / (out_width * outputs);
        let input = padded_rows(x, shape, first * stride, (rows - 1) * stride + kernel);
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
    out
}

/// Copies `count` rows of the padded image, starting at row `first`.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
fn padded_rows(x: Image<'_>, shape: ConvShape, first: usize, count: usize) -> Vec<f32> {
    let (before, after) = (shape.padding_before, shape.padding_after);
    let padded = (x.width + before + after) * x.channels;
    let row = x.width * x.channels;
    let mut input = vec![0f32; count * padded];
    for (index, to) in input.chunks_exact_mut(padded).enumerate() {
        let y = first + index;
        if y >= before && y < before + x.height {
            let from = &x.values[(y - before) * row..][..row];
            to[before * x.channels..][..row].copy_from_slice(from);
        }
    }
    input
}
