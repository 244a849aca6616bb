//! The product of a linear layer, whose weight is converted to f32 while it is multiplied.

use std::cell::RefCell;

use super::gemm::{Matrix, first_values, matmul_in_parts};
use super::transpose::{EncodedMatrix, transpose, transpose_encoded};
use super::{Format, RowFactors, Values};

/// The largest number of inputs and of outputs whose weights are converted to f32 at a time: 0.5 MB, which stays in the second-level
/// cache until it is multiplied.
const PART_INPUTS: usize = 2048;
const PART_OUTPUTS: usize = 64;

/// The number of inputs that are converted at a time: whole blocks of every format.
const STEP: usize = 256;

/// The weight of a linear layer: a row of inputs for each output.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// A weight in memory.
    Values(&'a Values),
    /// A weight that is read while it is multiplied.
    Rows(&'a dyn Rows),
}

/// The rows of a weight that is not in memory.
pub trait Rows: Sync {
    /// Returns the format of the values. A row is whole blocks.
    fn format(&self) -> Format;

    /// Returns the factors of the rows, if they have any.
    fn factors(&self) -> Option<&RowFactors>;

    /// Reads whole rows from the row `first` on. Several threads read different rows at the same time. No thread may wait for tasks of
    /// rayon meanwhile, because its buffers are in use.
    fn read(&self, first: usize, rows: &mut [u8]);
}

thread_local! {
    /// The memory of a thread for the rows that it reads, and for their transposition.
    static BUFFERS: RefCell<(Vec<u8>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Computes `out = x·Wᵀ` for a weight `[outputs, inputs]`, with the rows of `out` one after another.
pub fn linear(out: &mut [f32], x: Matrix<'_>, weight: Weight<'_>, outputs: usize) {
    let inputs = x.cols;
    // The product reads the weight of all outputs for one input after another. In this order its own packing is fast.
    let fill = |input: usize, output: usize, part: &mut [f32], rows: &mut Vec<u8>, buffer: &mut Vec<f32>| {
        let count = PART_OUTPUTS.min(outputs - output);
        let (format, bytes, factors) = match weight {
            Weight::Values(values) => {
                let (format, bytes, factors) = values.stored();
                (format, format.bytes_of(output * inputs).and_then(|start| bytes.get(start..)).unwrap_or(&[]), factors)
            }
            Weight::Rows(weight) => {
                let format = weight.format();
                let bytes = first_values(rows, format.bytes_of(count * inputs).unwrap_or(0));
                if input == 0 {
                    weight.read(output, bytes);
                }
                (format, &*bytes, weight.factors())
            }
        };
        for (input, part) in (input..).step_by(STEP).zip(part.chunks_mut(STEP * count)) {
            match (factors, format.bytes_of(input).and_then(|start| bytes.get(start..))) {
                (None, Some(bytes)) => {
                    transpose_encoded(part, count, buffer, EncodedMatrix { format, bytes, stride: inputs })
                }
                (factors, _) => transpose(part, count, buffer, |row, values| {
                    format.widen_from(bytes, row * inputs + input, values);
                    factors.into_iter().for_each(|factors| factors.apply((output + row) * inputs + input, values));
                }),
            }
        }
    };
    matmul_in_parts(out, outputs, x, (PART_INPUTS, PART_OUTPUTS), |input, output, part| {
        BUFFERS.with_borrow_mut(|(rows, buffer)| fill(input, output, part, rows, buffer));
    });
}
