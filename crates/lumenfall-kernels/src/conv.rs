//! Convolution of channels-last images.

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::source::Source;
use super::winograd;

/// The number of output pixels that one task computes: large enough to make packing the weights cheap, small enough that
/// input and output fit into the cache.
const STRIPE_PIXELS: usize = 1024;

/// The numbers of channels and of output pixels from which on Winograd's algorithm is used. At 32×32 pixels it takes about
/// the time of the direct one, because transforming the weight takes most of it, and at 64×64 about half.
const WINOGRAD_CHANNELS: usize = 32;
const WINOGRAD_PIXELS: usize = 1024;

/// The shape of a convolution with a square kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// The side of the kernel.
    pub kernel: usize,
    /// The distance of the windows of neighbouring output pixels.
    pub stride: usize,
    /// The number of zero rows above the image and of zero columns at its left.
    pub padding_before: usize,
    /// The number of zero rows below the image and of zero columns at its right.
    pub padding_after: usize,
}

impl ConvShape {
    /// Returns the length of the output's side for a side of the input.
    pub fn output_side(self, side: usize) -> usize {
        (side + self.padding_before + self.padding_after).saturating_sub(self.kernel) / self.stride + 1
    }
}

/// A convolution whose weight is ready for an image of a certain size.
pub struct Convolution<'a> {
    shape: ConvShape,
    weight: Weight<'a>,
    /// `[out]`
    bias: &'a [f32],
}

enum Weight<'a> {
    /// `[kernel, kernel, in, out]`
    Direct(&'a [f32]),
    Winograd(Vec<f32>),
}

impl<'a> Convolution<'a> {
    /// Prepares a convolution with a weight `[kernel, kernel, in, out]` and a bias `[out]` for an output of `pixels`.
    pub fn new(shape: ConvShape, weight: &'a [f32], bias: &'a [f32], pixels: usize) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / (shape.kernel * shape.kernel * outputs);
        let fits = |channels: usize| channels >= WINOGRAD_CHANNELS && channels.is_multiple_of(winograd::LANES);
        let same_size_3x3 = ConvShape { kernel: 3, stride: 1, padding_before: 1, padding_after: 1 };
        let weight = match shape == same_size_3x3 && fits(inputs) && fits(outputs) && pixels >= WINOGRAD_PIXELS {
            true => Weight::Winograd(winograd::transform_weight(weight)),
            false => Weight::Direct(weight),
        };
        Self { shape, weight, bias }
    }

    /// Convolves an image. Writes the rows of the result from `first_row` to `out`, or adds them to it.
    pub fn compute(&self, source: &Source<'_>, first_row: usize, write: Write, out: &mut [f32]) {
        match &self.weight {
            Weight::Direct(weight) => direct(source, self.shape, weight, self.bias, first_row, write, out),
            Weight::Winograd(weight) => winograd::convolve(source, weight, self.bias, first_row, write, out),
        }
    }
}

/// Convolves an image with a weight `[kernel, kernel, in, out]` and a bias `[out]`.
///
/// Processes stripes of output rows in parallel. Each task copies its input rows into a padded buffer, where the inputs of
/// a kernel row are contiguous. A kernel row is then one matrix product whose left matrix is the buffer read with
/// overlapping rows, so im2col needs no copy.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
fn direct(
    source: &Source<'_>,
    shape: ConvShape,
    weight: &[f32],
    bias: &[f32],
    first_row: usize,
    write: Write,
    out: &mut [f32],
) {
    let ConvShape { kernel, stride, padding_before, padding_after } = shape;
    let (inputs, outputs) = (source.image.channels, bias.len());
    let padded_width = source.width() + padding_before + padding_after;
    let out_width = shape.output_side(source.width());
    let stripe_rows = STRIPE_PIXELS.div_ceil(out_width);
    let taps = kernel * inputs;
    let buffers = || (Vec::new(), Vec::new());
    let stripes = out.par_chunks_mut(stripe_rows * out_width * outputs).enumerate();
    stripes.for_each_init(buffers, |(input, sums), (stripe, out)| {
        let first = (first_row + stripe * stripe_rows) * stride;
        let rows = out.len() / (out_width * outputs);
        source.copy(first..first + (rows - 1) * stride + kernel, 0..padded_width, padding_before, input);
        // If the stride is 1, one product computes all rows of the stripe. The sums at the end of each row, for pixels
        // that cross it, are not used.
        let row_of_sums = if stride == 1 { padded_width } else { out_width };
        let pixels = (rows - 1) * row_of_sums + out_width;
        let (products, pixels_of_product) = if stride == 1 { (1, pixels) } else { (rows, out_width) };
        sums.resize(pixels * outputs, 0f32);
        for product in 0..products {
            let sums = &mut sums[product * row_of_sums * outputs..];
            for tap_row in 0..kernel {
                let start = (product * stride + tap_row) * padded_width * inputs;
                let a = Matrix::row_major(&input[start..], pixels_of_product, taps, stride * inputs);
                let b = Matrix::row_major(&weight[tap_row * taps * outputs..], taps, outputs, outputs);
                let write = if tap_row == 0 { Write::Replace } else { Write::Add };
                matmul(sums, outputs, write, 1.0, a, b, Threads::One);
            }
        }
        for (out, sums) in out.chunks_exact_mut(out_width * outputs).zip(sums.chunks(row_of_sums * outputs)) {
            for (out, sums) in out.chunks_exact_mut(outputs).zip(sums.chunks_exact(outputs)) {
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(bias) {
                    *out = if write == Write::Add { *out + (sum + bias) } else { sum + bias };
                }
            }
        }
    });
}
