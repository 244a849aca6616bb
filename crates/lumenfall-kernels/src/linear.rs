//! The product of a linear layer, whose weight is converted to f32 while it is multiplied.

use super::Values;
use super::gemm::{Matrix, matmul_in_parts};
use super::transpose::transpose;

/// The largest number of inputs and of outputs whose weights are converted to f32 at a time: 0.5 MB, which stays in the second-level
/// cache until it is multiplied.
const PART_INPUTS: usize = 2048;
const PART_OUTPUTS: usize = 64;

/// The number of inputs that are converted at a time: whole blocks of every format.
const STEP: usize = 256;

/// Computes `out = x·Wᵀ` for a weight `[outputs, inputs]`, with the rows of `out` one after another.
pub fn linear(out: &mut [f32], x: Matrix<'_>, weight: &Values, outputs: usize) {
    let inputs = x.cols;
    // The product reads the weight of all outputs for one input after another. In this order its own packing is fast.
    matmul_in_parts(out, outputs, x, (PART_INPUTS, PART_OUTPUTS), |input, output, part| {
        let count = PART_OUTPUTS.min(outputs - output);
        let mut buffer = Vec::new();
        for (input, part) in (input..).step_by(STEP).zip(part.chunks_mut(STEP * count)) {
            transpose(part, count, &mut buffer, |row, values| {
                weight.widen((output + row) * inputs + input, values);
            });
        }
    });
}
