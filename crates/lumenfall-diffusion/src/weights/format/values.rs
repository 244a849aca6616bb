//! Values in the format of their file.

use half::f16;

use super::Format;

/// The number of values that are checked at a time.
const CHUNK: usize = 4096;

/// Values in the format of their file. All formats can be converted to f32.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    /// Values that can be used without a conversion.
    F32(Vec<f32>),
    /// Whole blocks of any other format.
    Encoded(Format, Vec<u8>),
}

impl Values {
    /// Creates an empty list for `count` values.
    pub(crate) fn with_capacity(format: Format, count: usize) -> Self {
        match format {
            Format::F32 => Self::F32(Vec::with_capacity(count)),
            _ => Self::Encoded(format, Vec::with_capacity(format.bytes_of(count).unwrap_or(0))),
        }
    }

    /// Appends the values in `bytes`, which contain whole blocks.
    pub(crate) fn extend_from_bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::F32(values) => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::Encoded(_, encoded) => encoded.extend_from_slice(bytes),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Encoded(format, bytes) => bytes.len() / format.block_bytes() * format.block_values(),
        }
    }

    /// Returns the index of the first value that is infinite or not a number, or of the first value of its block.
    pub(crate) fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => values.iter().position(|value| !value.is_finite()),
            Self::Encoded(format, bytes) if format.block_values() == 1 => {
                let mut buffer = [0.0; CHUNK];
                bytes.chunks(CHUNK * format.block_bytes()).enumerate().find_map(|(chunk, bytes)| {
                    let (values, _) = buffer.split_at_mut(bytes.len() / format.block_bytes());
                    format.widen(bytes, values);
                    // Unlike `all`, this loop has no early exit, so the compiler vectorizes it.
                    let finite = values.iter().fold(true, |finite, value| finite & value.is_finite());
                    let at = if finite { None } else { values.iter().position(|value| !value.is_finite()) };
                    at.map(|at| chunk * CHUNK + at)
                })
            }
            // The integers in a block are finite, and their products with a finite f16 are, too.
            Self::Encoded(format, bytes) => {
                let finite = |block: &[u8], at: usize| {
                    let scale = block.get(at..).and_then(|rest| rest.first_chunk());
                    scale.is_some_and(|scale| f16::from_le_bytes(*scale).is_finite())
                };
                let block = bytes
                    .chunks_exact(format.block_bytes())
                    .position(|block| !format.scales().iter().all(|at| finite(block, *at)));
                block.map(|block| block * format.block_values())
            }
        }
    }

    /// Writes the values from index `first`, which is the first of a block, to `out`, which has room for whole blocks.
    ///
    /// Indices that do not exist leave `out` as it is.
    pub(crate) fn widen(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::F32(values) => {
                values.get(first..first + out.len()).into_iter().for_each(|part| out.copy_from_slice(part));
            }
            Self::Encoded(format, bytes) => {
                let range = format.bytes_of(first).zip(format.bytes_of(out.len()));
                let part = range.and_then(|(start, length)| bytes.get(start..start + length));
                part.into_iter().for_each(|part| format.widen(part, out));
            }
        }
    }

    /// Converts all values to f32.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        if let Self::F32(values) = self {
            return values;
        }
        let mut values = vec![0.0; self.len()];
        self.widen(0, &mut values);
        values
    }
}
