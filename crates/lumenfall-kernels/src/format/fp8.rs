//! The 8-bit floating-point formats.
#![allow(clippy::indexing_slicing, reason = "the tables have a value for each of the 256 codes")]

use half::f16;

/// The values of the 256 codes of a format.
pub(super) type Fp8 = [f32; 256];

/// One sign bit, four exponent bits (bias 7) and three mantissa bits, without infinities (OCP 8-bit floating point, E4M3).
pub(super) static E4M3: Fp8 = {
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
pub(super) static E5M2: Fp8 = {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = f16::from_bits((code as u16) << 8).to_f32_const();
        code += 1;
    }
    values
};

#[inline(always)]
pub(super) fn value_of(table: &Fp8, code: u8) -> f32 {
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
