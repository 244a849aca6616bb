//! The transposition of a matrix whose rows are computed when they are needed.

/// The number of rows that are transposed together. Their columns fill whole cache lines.
const GROUP: usize = 16;

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
}
