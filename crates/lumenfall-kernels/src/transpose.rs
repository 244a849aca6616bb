//! The transposition of matrices that are converted to f32, or computed, when they are needed.

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "x86_64"))]
use std::ops::Range;

use pulp::bytemuck::cast_slice;

use super::Format;
#[cfg(target_arch = "x86_64")]
use x86::transpose_group;

/// The number of rows that are transposed together. Their columns fill whole cache lines.
const GROUP: usize = 16;

/// A matrix of whole blocks of a format.
#[derive(Clone, Copy)]
pub(super) struct EncodedMatrix<'a> {
    pub(super) format: Format,
    /// The values, of which the first is that of the first row and column.
    pub(super) bytes: &'a [u8],
    /// The distance of neighbouring rows, in values.
    pub(super) stride: usize,
}

/// Writes the transpose of a matrix with `rows` rows to `out`, as f32, on the calling thread.
pub(super) fn transpose_encoded(out: &mut [f32], rows: usize, buffer: &mut Vec<f32>, source: EncodedMatrix<'_>) {
    let EncodedMatrix { format, bytes, stride } = source;
    if !transpose_group(out, rows, 0..rows, source) {
        transpose(out, rows, buffer, |row, values| format.widen_from(bytes, row * stride, values));
    }
}

/// Writes the transpose of a matrix with `rows` rows to `out`, on the calling thread. `read(row, values)` writes the values of a row.
pub(super) fn transpose(out: &mut [f32], rows: usize, buffer: &mut Vec<f32>, read: impl Fn(usize, &mut [f32])) {
    let columns = out.len() / rows;
    // Rows whose distance is a power of two would displace each other from the cache.
    let stride = columns + GROUP;
    buffer.resize(GROUP * stride, 0.0);
    for first in (0..rows).step_by(GROUP) {
        let group = GROUP.min(rows - first);
        for (row, values) in (first..first + group).zip(buffer.chunks_exact_mut(stride)) {
            read(row, values.split_at_mut(columns).0);
        }
        let source = EncodedMatrix { format: Format::F32, bytes: cast_slice(buffer), stride };
        if !transpose_group(out, rows, first..first + group, source)
            && let Some(out) = out.get_mut(first..)
        {
            vectorized!(scatter(buffer, stride, out, rows, group, columns));
        }
    }
}

/// Writes the transpose of some rows of a matrix to the columns `group` of `out`, which has `rows` columns.
///
/// Returns false, and writes nothing, if there is no fast version for the processor, the format or the shape.
#[cfg(not(target_arch = "x86_64"))]
fn transpose_group(_out: &mut [f32], _rows: usize, _group: Range<usize>, _source: EncodedMatrix<'_>) -> bool {
    false
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
        for (rows, columns) in [(1, 1), (16, 8), (15, 7), (33, 20), (64, 3)] {
            let mut out = vec![f32::NAN; rows * columns];
            transpose(&mut out, rows, &mut Vec::new(), |row, values| {
                assert_eq!(values.len(), columns);
                values.iter_mut().enumerate().for_each(|(i, value)| *value = (row * columns + i) as f32);
            });
            let expected = (0..columns).flat_map(|column| (0..rows).map(move |row| (row * columns + column) as f32));
            assert_eq!(out, expected.collect::<Vec<_>>(), "{rows}x{columns}");
        }
    }

    #[test]
    fn values_of_every_format_are_converted_and_transposed() {
        for format in
            [Format::F32, Format::F16, Format::Bf16, Format::F8E4m3, Format::F8E5m2, Format::Q8_0, Format::Q4K]
        {
            for (rows, columns) in [(64, 256), (8, 256), (17, 256), (24, 512)] {
                // The distance of rows is larger than a row. All values are finite.
                let stride = columns + 256;
                let bytes = format.bytes_of(rows * stride).unwrap();
                let bytes: Vec<u8> = (0..bytes).map(|index| (index * 37 % 61) as u8).collect();
                let mut out = vec![f32::NAN; rows * columns];
                transpose_encoded(&mut out, rows, &mut Vec::new(), EncodedMatrix { format, bytes: &bytes, stride });
                let mut row = vec![0.0; columns];
                for index in 0..rows {
                    format.widen_from(&bytes, index * stride, &mut row);
                    assert!(row.iter().any(|value| *value != 0.0));
                    let transposed = out.iter().skip(index).step_by(rows);
                    assert!(transposed.eq(&row), "{} {rows}x{columns}", format.name());
                }
            }
        }
    }
}
