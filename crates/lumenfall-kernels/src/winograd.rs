//! 3×3 convolutions by Winograd's algorithm F(4×4, 3×3): 36 products for a tile of 4×4 output pixels instead of 144.
//!
//! A tile is computed from 6×6 input pixels. A linear transform converts these to 36 values, each is multiplied with the
//! transformed weight at its position, and another linear transform converts the sums over the input channels to the output
//! pixels. The products of all tiles of a block at one position are one matrix product. The matrices are those of Lavin and
//! Gray, <https://arxiv.org/abs/1509.09308>.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::source::Source;

/// The number of channels that are transformed together. The numbers of channels must be multiples of it.
pub(super) const LANES: usize = 16;

/// The number of values that a tile is transformed to.
const POSITIONS: usize = 36;

/// The side of an output tile.
const TILE: usize = 4;

/// The largest number of tiles in a column of a block.
const BLOCK_DOWN: usize = 8;

/// The largest number of tiles in a row of a block. In wide blocks, a weight that is read is used more often. Narrow blocks
/// divide small images among more threads.
const BLOCK_RIGHT: usize = 16;
const BLOCK_RIGHT_OF_SMALL_IMAGE: usize = 8;

/// The number of pixels below which an image is small.
const SMALL_IMAGE: usize = 128 * 128;

/// Returns the memory of a thread for a 3×3 convolution with many channels, in bytes: the pixels of a block, the transformed tiles and
/// their products.
pub fn buffer_bytes(inputs: usize, outputs: usize) -> u64 {
    let pixels = (TILE * BLOCK_DOWN + 2) * (TILE * BLOCK_RIGHT + 2);
    let tiles = BLOCK_DOWN * BLOCK_RIGHT;
    4 * (pixels * inputs + POSITIONS * tiles * (inputs + outputs)) as u64
}

type Lanes = [f32; LANES];

/// Transforms a weight `[3, 3, in, out]` to `[36, in, out]`, which is four times as large.
#[allow(clippy::indexing_slicing, reason = "the nine parts of the weight have the same size")]
pub(super) fn transform_weight(weight: &[f32]) -> Vec<f32> {
    /// The values of a column of the kernel become these sums of them.
    const G: [[f32; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    let size = weight.len() / 9;
    let taps: [&[f32]; 9] = std::array::from_fn(|tap| &weight[tap * size..][..size]);
    let mut out = vec![0f32; POSITIONS * size];
    out.par_chunks_mut(6 * size).zip(&G).for_each(|(out, vertical)| {
        vectorized!({
            for start in (0..size).step_by(LANES) {
                let columns: [Lanes; 3] = std::array::from_fn(|column| {
                    std::array::from_fn(|i| (0..3).map(|row| vertical[row] * taps[3 * row + column][start + i]).sum())
                });
                for (out, horizontal) in out.chunks_exact_mut(size).zip(&G) {
                    let sums: Lanes =
                        std::array::from_fn(|i| (0..3).map(|column| horizontal[column] * columns[column][i]).sum());
                    out[start..start + LANES].copy_from_slice(&sums);
                }
            }
        });
    });
    out
}

/// The part of the output that one task computes.
struct Block<'a> {
    first_row: usize,
    first_column: usize,
    /// The part of each row of the output.
    rows: Vec<&'a mut [f32]>,
}

/// Divides rows of pixels of `outputs` values into blocks, which do not depend on the number of threads.
fn blocks(out: &mut [f32], first_row: usize, width: usize, outputs: usize) -> Vec<Block<'_>> {
    // Blocks of nearly the same size, so that none has only a few tiles.
    let side = |pixels: usize, limit: usize| {
        let tiles = pixels.div_ceil(TILE);
        TILE * tiles.div_ceil(tiles.div_ceil(limit))
    };
    let pixels = out.len() / outputs;
    let right = if pixels < SMALL_IMAGE { BLOCK_RIGHT_OF_SMALL_IMAGE } else { BLOCK_RIGHT };
    let (rows, columns) = (side(pixels / width, BLOCK_DOWN), side(width, right));
    let mut blocks = Vec::new();
    for (down, rows_of_blocks) in out.chunks_mut(rows * width * outputs).enumerate() {
        let first = blocks.len();
        blocks.extend((0..width.div_ceil(columns)).map(|right| Block {
            first_row: first_row + down * rows,
            first_column: right * columns,
            rows: Vec::with_capacity(rows),
        }));
        for row in rows_of_blocks.chunks_mut(width * outputs) {
            let parts = row.chunks_mut(columns * outputs);
            blocks.iter_mut().skip(first).zip(parts).for_each(|(block, part)| block.rows.push(part));
        }
    }
    blocks
}

/// Convolves an image, which has one zero pixel at each side, with a weight of [`transform_weight`] and a bias `[out]`.
///
/// Writes the rows of the result from `first_row` to `out`, or adds them to it.
#[allow(clippy::indexing_slicing, reason = "every range is computed from the buffers' own sizes")]
pub(super) fn convolve(
    source: &Source<'_>,
    weight: &[f32],
    bias: &[f32],
    first_row: usize,
    write: Write,
    out: &mut [f32],
) {
    let (inputs, outputs) = (source.image.channels, bias.len());
    // Tasks reuse the buffers, whose memory would otherwise be requested from the system for each block.
    let unused = Mutex::new(Vec::new());
    let blocks = blocks(out, first_row, source.width(), outputs);
    blocks.into_par_iter().with_max_len(1).for_each(|mut block| {
        let mut buffers = unused.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let [patch, transformed, products] = &mut buffers;
        let columns = block.rows.first().map_or(0, |row| row.len() / outputs);
        let (down, right) = (block.rows.len().div_ceil(TILE), columns.div_ceil(TILE));
        let (tiles, width) = (down * right, TILE * right + 2);
        let (y, x) = (block.first_row, block.first_column);
        source.copy(y..y + TILE * down + 2, x..x + width, 1, patch);
        transformed.resize(POSITIONS * tiles * inputs, 0f32);
        products.resize(POSITIONS * tiles * outputs, 0f32);
        vectorized!(transform_input(patch, width, inputs, right, transformed));
        let parts = transformed.chunks_exact(tiles * inputs).zip(weight.chunks_exact(inputs * outputs));
        for ((values, weight), product) in parts.zip(products.chunks_exact_mut(tiles * outputs)) {
            let values = Matrix::row_major(values, tiles, inputs, inputs);
            let weight = Matrix::row_major(weight, inputs, outputs, outputs);
            matmul(product, outputs, Write::Replace, 1.0, values, weight, Threads::One);
        }
        vectorized!(transform_output(products, bias, right, write, &mut block.rows));
        unused.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
    });
}

/// Transforms tiles of a patch of pixels to `[36, tiles, channels]`. There are `right` tiles in a row.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "the patch has the pixels of all tiles")]
fn transform_input(patch: &[f32], width: usize, channels: usize, right: usize, out: &mut [f32]) {
    let groups = channels / LANES;
    let (patch, out) = (patch.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    let position_size = out.len() / POSITIONS;
    for tile in 0..position_size / groups {
        let corner = (tile / right * TILE * width + tile % right * TILE) * groups;
        for group in 0..groups {
            let mut columns = [[[0f32; LANES]; 6]; 6];
            for (x, column) in columns.iter_mut().enumerate() {
                *column = input_sums(std::array::from_fn(|y| &patch[corner + (y * width + x) * groups + group]));
            }
            for y in 0..6 {
                let row = input_sums(std::array::from_fn(|x| &columns[x][y]));
                for (x, value) in row.iter().enumerate() {
                    out[(6 * y + x) * position_size + tile * groups + group] = *value;
                }
            }
        }
    }
}

/// Transforms a column or a row of an input tile.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "all arrays have LANES values")]
fn input_sums([a, b, c, d, e, f]: [&Lanes; 6]) -> [Lanes; 6] {
    let mut out = [[0f32; LANES]; 6];
    for i in 0..LANES {
        let (even, odd) = (e[i] - 4.0 * c[i], d[i] - 4.0 * b[i]);
        let (even_half, odd_half) = (e[i] - c[i], 2.0 * (d[i] - b[i]));
        out[0][i] = 4.0 * a[i] - 5.0 * c[i] + e[i];
        out[1][i] = even + odd;
        out[2][i] = even - odd;
        out[3][i] = even_half + odd_half;
        out[4][i] = even_half - odd_half;
        out[5][i] = 4.0 * b[i] - 5.0 * d[i] + f[i];
    }
    out
}

/// Transforms products `[36, tiles, out]` to pixels, and writes them with the bias to the rows of a block.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "pixels beyond the rows and columns of the block are excluded")]
fn transform_output(products: &[f32], bias: &[f32], right: usize, write: Write, rows: &mut [&mut [f32]]) {
    let groups = bias.len() / LANES;
    let (products, bias) = (products.as_chunks::<LANES>().0, bias.as_chunks::<LANES>().0);
    let position_size = products.len() / POSITIONS;
    for tile in 0..position_size / groups {
        let (top, left) = (tile / right * TILE, tile % right * TILE);
        for (group, bias) in bias.iter().enumerate() {
            let mut columns = [[[0f32; LANES]; TILE]; 6];
            for (x, column) in columns.iter_mut().enumerate() {
                *column = output_sums(std::array::from_fn(|y| {
                    &products[(6 * y + x) * position_size + tile * groups + group]
                }));
            }
            for (y, row) in rows.iter_mut().skip(top).take(TILE).enumerate() {
                let sums = output_sums(std::array::from_fn(|x| &columns[x][y]));
                let pixels = row.as_chunks_mut::<LANES>().0.iter_mut().skip(left * groups + group).step_by(groups);
                for (pixel, sum) in pixels.zip(&sums) {
                    for i in 0..LANES {
                        let value = sum[i] + bias[i];
                        pixel[i] = if write == Write::Add { pixel[i] + value } else { value };
                    }
                }
            }
        }
    }
}

/// Transforms a column or a row of products.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "all arrays have LANES values")]
fn output_sums([a, b, c, d, e, f]: [&Lanes; 6]) -> [Lanes; TILE] {
    let mut out = [[0f32; LANES]; TILE];
    for i in 0..LANES {
        let (sum, difference) = (b[i] + c[i], b[i] - c[i]);
        let (far_sum, far_difference) = (d[i] + e[i], d[i] - e[i]);
        out[0][i] = a[i] + sum + far_sum;
        out[1][i] = difference + 2.0 * far_difference;
        out[2][i] = sum + 4.0 * far_sum;
        out[3][i] = difference + 8.0 * far_difference + f[i];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvShape, Image, reference};

    /// Returns random values between -1 and 1.
    fn random(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Asserts that the root mean square of the differences is small, because the transforms round more than a sum does.
    #[track_caller]
    fn assert_same(actual: &[f32], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        let mean_square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = mean_square(&mut actual.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
        let size = mean_square(&mut expected.iter().copied());
        assert!(difference < 5e-6 * size, "differs by {difference} of {size}");
    }

    #[test]
    fn results_match_for_images_of_any_shape() {
        let (inputs, outputs) = (48, 32);
        let weight = random(1, 9 * inputs * outputs);
        let bias = random(2, outputs);
        // [out, in, 3, 3] -> [3, 3, in, out]
        let permuted: Vec<f32> = (0..weight.len())
            .map(|i| weight[(i % outputs * inputs + i / outputs % inputs) * 9 + i / outputs / inputs])
            .collect();
        let transformed = transform_weight(&permuted);
        for (height, width) in [(1, 1), (1, 9), (3, 2), (4, 4), (5, 33), (37, 70), (64, 3)] {
            let values = random(3, height * width * inputs);
            let image = Image { values: &values, height, width, channels: inputs };
            let shape = ConvShape { kernel: 3, stride: 1, padding_before: 1, padding_after: 1 };
            let mut expected = reference::conv2d(image, shape, &weight, &bias);
            let mut out = vec![f32::NAN; expected.len()];
            let source = Source::plain(image);
            convolve(&source, &transformed, &bias, 0, Write::Replace, &mut out);
            assert_same(&out, &expected);

            let first = height / 2;
            let part = first * width * outputs;
            convolve(&source, &transformed, &bias, first, Write::Add, &mut out[part..]);
            expected[part..].iter_mut().for_each(|value| *value *= 2.0);
            assert_same(&out, &expected);
        }
    }
}
