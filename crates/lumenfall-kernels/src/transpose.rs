//! The transposition of a matrix whose rows are computed when they are needed.

use rayon::prelude::*;

/// The number of rows that are transposed together. Their columns fill whole cache lines.
const GROUP: usize = 16;

/// Writes the transpose of a matrix with `rows` rows to `out`.
///
/// `read(row, column, values)` writes the values of a row from a column on. The column is a multiple of `step`, and there
/// are at most `step` values. The columns are divided among the threads.
pub(super) fn transpose(out: &mut [f32], rows: usize, step: usize, read: impl Fn(usize, usize, &mut [f32]) + Sync) {
    if rows == 0 {
        return;
    }
    out.par_chunks_mut(step * rows).enumerate().for_each_init(Vec::new, |buffer, (part, out)| {
        transpose_part(out, rows, buffer, |row, values| read(row, part * step, values));
    });
}

/// Does the same on the calling thread for a few columns. `read(row, values)` writes the values of a row.
pub(super) fn transpose_part(out: &mut [f32], rows: usize, buffer: &mut Vec<f32>, read: impl Fn(usize, &mut [f32])) {
    let columns = out.len() / rows;
    // Rows whose distance is a power of two would displace each other from the cache.
    let stride = columns + GROUP;
    buffer.resize(GROUP * stride, 0.0);
    for first in (0..rows).step_by(GROUP) {
        let group = GROUP.min(rows - first);
        for (row, values) in (first..first + group).zip(buffer.chunks_exact_mut(stride)) {
            read(row, values.split_at_mut(columns).0);
        }
        if let Some(out) = out.get_mut(first..) {
            vectorized!(scatter(buffer, stride, out, rows, group, columns));
        }
    }
}

/// Copies row `i` of the buffer to position `i` of each row of `out`.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "the buffer has GROUP rows of more than `columns` values")]
fn scatter(buffer: &[f32], stride: usize, out: &mut [f32], rows: usize, group: usize, columns: usize) {
    if group == GROUP {
        let sources: [&[f32]; GROUP] = std::array::from_fn(|i| &buffer[i * stride..][..columns]);
        for (column, out) in out.chunks_mut(rows).enumerate() {
            for (out, source) in out[..GROUP].iter_mut().zip(&sources) {
                *out = source[column];
            }
        }
        return;
    }
    for (column, out) in out.chunks_mut(rows).enumerate() {
        out.iter_mut().take(group).enumerate().for_each(|(i, out)| *out = buffer[i * stride + column]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_transposed() {
        for (rows, columns, step) in [(1, 1, 1), (16, 8, 8), (15, 7, 4), (33, 20, 8), (64, 3, 256)] {
            let mut out = vec![f32::NAN; rows * columns];
            transpose(&mut out, rows, step, |row, first, values| {
                assert_eq!(first % step, 0);
                assert!(values.len() <= step);
                values.iter_mut().enumerate().for_each(|(i, value)| *value = (row * columns + first + i) as f32);
            });
            let expected = (0..columns).flat_map(|column| (0..rows).map(move |row| (row * columns + column) as f32));
            assert_eq!(out, expected.collect::<Vec<_>>(), "{rows}x{columns} in steps of {step}");
        }
        transpose(&mut [], 0, 1, |_, _, _| unreachable!());
    }
}
