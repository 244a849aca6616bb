//! Values in the format of their file.
#![allow(clippy::indexing_slicing, reason = "the tables have a value for each of the 256 codes")]

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

/// Values in the format of their file. All formats can be converted to f32 without loss.
#[derive(Clone, Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Fp8(&'static Fp8, Vec<u8>),
}

/// The values of the 256 codes of an 8-bit format.
pub(crate) type Fp8 = [f32; 256];

/// One sign bit, four exponent bits (bias 7) and three mantissa bits, without infinities (OCP 8-bit floating point, E4M3).
static E4M3: Fp8 = {
    let mut values = [0.0; 256];
    let mut code = 0u32;
    while code < 256 {
        let (exponent, mantissa) = (code >> 3 & 15, code & 7);
        let magnitude = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            // 2⁻⁹ is the smallest value above 0.
            (0, _) => mantissa as f32 / 512.0,
            _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
        };
        values[code as usize] = if code < 128 { magnitude } else { -magnitude };
        code += 1;
    }
    values
};

/// One sign bit, five exponent bits and two mantissa bits: the upper half of an f16.
static E5M2: Fp8 = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = f16::from_bits((code as u16) << 8).to_f32_const();
        code += 1;
    }
    values
};

impl Values {
    /// Creates an empty list for `count` values. Returns `None` if the type is not supported.
    pub(crate) fn with_capacity(dtype: Dtype, count: usize) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32(Vec::with_capacity(count))),
            Dtype::F16 => Some(Self::F16(Vec::with_capacity(count))),
            Dtype::BF16 => Some(Self::Bf16(Vec::with_capacity(count))),
            Dtype::F8_E4M3 => Some(Self::Fp8(&E4M3, Vec::with_capacity(count))),
            Dtype::F8_E5M2 => Some(Self::Fp8(&E5M2, Vec::with_capacity(count))),
            _ => None,
        }
    }

    /// Returns the number of bytes of a value.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::F32(_) => 4,
            Self::F16(_) | Self::Bf16(_) => 2,
            Self::Fp8(..) => 1,
        }
    }

    /// Appends the values in `bytes`, whose length is a multiple of the size of a value.
    pub(crate) fn extend_from_bytes(&mut self, bytes: &[u8]) {
        match self {
            Self::F32(values) => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            Self::F16(values) => values.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b))),
            Self::Bf16(values) => values.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b))),
            Self::Fp8(_, codes) => codes.extend_from_slice(bytes),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Fp8(_, codes) => codes.len(),
        }
    }

    /// Returns the index of the first value that is infinite or not a number.
    pub(super) fn first_not_finite(&self) -> Option<usize> {
        match self {
            Self::F32(values) => values.iter().position(|value| !value.is_finite()),
            Self::F16(values) => values.iter().position(|value| !value.is_finite()),
            Self::Bf16(values) => values.iter().position(|value| !value.is_finite()),
            Self::Fp8(table, codes) => codes.iter().position(|code| !value_of(table, *code).is_finite()),
        }
    }

    /// Writes the values from index `first` to `out`. Indices that do not exist leave `out` as it is.
    pub(crate) fn widen(&self, first: usize, out: &mut [f32]) {
        let range = first..first + out.len();
        match self {
            Self::F32(values) => values.get(range).into_iter().for_each(|part| out.copy_from_slice(part)),
            Self::F16(values) => values.get(range).into_iter().for_each(|part| part.convert_to_f32_slice(out)),
            Self::Bf16(values) => values.get(range).into_iter().for_each(|part| part.convert_to_f32_slice(out)),
            Self::Fp8(table, codes) => codes
                .get(range)
                .into_iter()
                .for_each(|part| out.iter_mut().zip(part).for_each(|(out, code)| *out = value_of(table, *code))),
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

fn value_of(table: &Fp8, code: u8) -> f32 {
    table[usize::from(code)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_formats_have_the_values_of_their_specification() {
        // The extreme values of OCP 8-bit Floating Point Specification, revision 1.0, table 1.
        for (code, value) in [(0x00, 0.0), (0x01, 2f32.powi(-9)), (0x07, 0.875 * 2f32.powi(-6)), (0x08, 2f32.powi(-6))]
        {
            assert_eq!((value_of(&E4M3, code), value_of(&E4M3, code | 0x80)), (value, -value), "{code:#x}");
        }
        assert_eq!((value_of(&E4M3, 0x38), value_of(&E4M3, 0x7e)), (1.0, 448.0));
        assert!(value_of(&E4M3, 0x7f).is_nan() && value_of(&E4M3, 0xff).is_nan());
        assert_eq!((value_of(&E5M2, 0x01), value_of(&E5M2, 0x3c)), (2f32.powi(-16), 1.0));
        assert_eq!((value_of(&E5M2, 0x7b), value_of(&E5M2, 0xfb)), (57344.0, -57344.0));
        assert!(value_of(&E5M2, 0x7c).is_infinite() && value_of(&E5M2, 0x7f).is_nan());
    }
}
