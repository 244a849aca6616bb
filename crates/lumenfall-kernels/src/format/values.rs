//! Values in the format of their file.

use std::borrow::Cow;

use pulp::bytemuck::cast_slice;

use super::Format;

/// Values in the format of their file. All formats can be converted to f32.
#[derive(Clone, Debug)]
pub enum Values {
    /// Values that can be used without a conversion.
    F32(Vec<f32>),
    /// Whole blocks of any other format.
    Encoded(Format, Vec<u8>),
    /// Values that are multiplied by a factor for each row.
    Scaled(Box<Self>, RowFactors),
}

/// A factor for each row of a matrix.
#[derive(Clone, Debug)]
pub struct RowFactors {
    /// One factor per row.
    pub factors: Vec<f32>,
    /// The number of values of a row.
    pub width: usize,
}

impl RowFactors {
    /// Creates the factors of `rows` rows, which have `values` values together. A single factor is that of all rows.
    pub fn new(factors: Vec<f32>, rows: usize, values: usize) -> Self {
        let factors = match factors.as_slice() {
            [factor] => vec![*factor; rows],
            _ => factors,
        };
        Self { factors, width: (values / rows.max(1)).max(1) }
    }

    /// Returns the index of the first value whose factor is infinite or not a number.
    pub fn first_not_finite(&self) -> Option<usize> {
        let row = self.factors.iter().position(|factor| !factor.is_finite())?;
        Some(row * self.width)
    }

    /// Multiplies values, the first of which has the index `first` in the matrix.
    pub(crate) fn apply(&self, first: usize, values: &mut [f32]) {
        let mut rest = values;
        let mut index = first;
        while !rest.is_empty() {
            let row = index / self.width;
            let count = ((row + 1) * self.width - index).min(rest.len());
            let (part, remaining) = rest.split_at_mut(count);
            let factor = self.factors.get(row).copied().unwrap_or(1.0);
            part.iter_mut().for_each(|value| *value *= factor);
            (rest, index) = (remaining, index + count);
        }
    }
}

#[allow(clippy::len_without_is_empty, reason = "nothing needs it")]
impl Values {
    /// Creates an empty list for `count` values.
    pub fn with_capacity(format: Format, count: usize) -> Self {
        match format {
            Format::F32 => Self::F32(Vec::with_capacity(count)),
            _ => Self::Encoded(format, Vec::with_capacity(format.bytes_of(count).unwrap_or(0))),
        }
    }

    /// Appends the values in `bytes`, which contain whole blocks.
    pub fn extend_from_bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::F32(values) => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::Encoded(_, encoded) => encoded.extend_from_slice(bytes),
            Self::Scaled(values, _) => values.extend_from_bytes(bytes),
        }
    }

    /// Appends values. If their formats differ, all become f32.
    pub fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::F32(values), Self::F32(other)) => values.extend(other),
            (Self::Encoded(format, bytes), Self::Encoded(other_format, other)) if *format == other_format => {
                bytes.extend(other);
            }
            (_, other) => {
                let mut values = std::mem::replace(self, Self::F32(Vec::new())).into_f32();
                values.extend(other.into_f32());
                *self = Self::F32(values);
            }
        }
    }

    /// Multiplies `rows` rows of equal length by one factor, or each by its own.
    pub fn scaled(self, factors: Vec<f32>, rows: usize) -> Self {
        let factors = RowFactors::new(factors, rows, self.len());
        Self::Scaled(Box::new(self), factors)
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Encoded(format, bytes) => bytes.len() / format.block_bytes() * format.block_values(),
            Self::Scaled(values, _) => values.len(),
        }
    }

    /// Returns the index of the first value that is infinite or not a number, or of the first value of its block.
    pub fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => values.iter().position(|value| !value.is_finite()),
            Self::Encoded(format, bytes) => format.first_not_finite(bytes),
            Self::Scaled(values, factors) => values.first_not_finite().or_else(|| factors.first_not_finite()),
        }
    }

    /// Writes the values from index `first`, which is the first of a block, to `out`, which has room for whole blocks.
    ///
    /// Indices that do not exist leave `out` as it is.
    pub fn widen(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::F32(values) => {
                values.get(first..first + out.len()).into_iter().for_each(|part| out.copy_from_slice(part));
            }
            Self::Encoded(format, bytes) => format.widen_from(bytes, first, out),
            Self::Scaled(values, factors) => {
                values.widen(first, out);
                factors.apply(first, out);
            }
        }
    }

    /// Returns all values as f32, without a copy if they are.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        if let Self::F32(values) = self {
            return Cow::Borrowed(values);
        }
        let mut values = vec![0.0; self.len()];
        self.widen(0, &mut values);
        Cow::Owned(values)
    }

    /// Returns the format, the bytes and the factors of the rows.
    pub(crate) fn stored(&self) -> (Format, &[u8], Option<&RowFactors>) {
        match self {
            Self::F32(values) => (Format::F32, cast_slice(values), None),
            Self::Encoded(format, bytes) => (*format, bytes, None),
            Self::Scaled(values, factors) => (values.stored().0, values.stored().1, Some(factors)),
        }
    }

    /// Converts all values to f32.
    pub fn into_f32(self) -> Vec<f32> {
        if let Self::F32(values) = self { values } else { self.to_f32().into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    const QUANTISED: [Format; 10] = [
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
    ];

    #[test]
    fn a_scale_that_is_not_finite_is_found_in_every_format() {
        for format in QUANTISED {
            let (bytes, values) = (format.block_bytes(), format.block_values());
            let mut infinite = 0;
            for at in (0..bytes).step_by(2) {
                // An infinite f16, at any position of the third of four blocks.
                let mut blocks = vec![0; 4 * bytes];
                blocks[2 * bytes + at..][..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
                let stored = Values::Encoded(format, blocks);
                let expected = stored.clone().into_f32().iter().position(|value| !value.is_finite());
                assert_eq!(stored.first_not_finite(), expected, "{} at {at}", format.name());
                if expected.is_some() {
                    assert_eq!(expected, Some(2 * values));
                    infinite += 1;
                }
            }
            assert_eq!(infinite, format.scales().len(), "{}", format.name());
        }
    }

    #[test]
    fn every_16_bit_float_is_converted_exactly() {
        let all = || 0..=u16::MAX;
        let bytes: Vec<u8> = all().flat_map(u16::to_le_bytes).collect();
        for (bits, value) in all().zip(Values::Encoded(Format::F16, bytes).into_f32()) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()), "{bits:#x}");
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        for format in [Format::F32, Format::F16, Format::Bf16, Format::F8E4m3, Format::F8E5m2] {
            for at in [0, 4095, 4096, 9999] {
                let mut bytes = vec![0; 10_000 * format.block_bytes()];
                // All bits are set in a NaN of each format.
                bytes[at * format.block_bytes()..].fill(0xff);
                let mut values = Values::with_capacity(format, 10_000);
                values.extend_from_bytes(&bytes);
                assert_eq!(values.first_not_finite(), Some(at), "{}", format.name());
            }
        }
    }

    #[test]
    fn parts_that_do_not_exist_are_not_written() {
        let values = Values::Encoded(Format::Q8_0, vec![0; 68]);
        for (first, count) in [(32, 64), (64, 32), (16, 32), (0, 31)] {
            let mut out = vec![1.0; count];
            values.widen(first, &mut out);
            assert!(out.iter().all(|value| *value == 1.0), "{first} {count}");
        }
    }
}
