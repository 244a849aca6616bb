//! The formats of weights in files, and their conversion to f32.

mod blocks;
mod finite;
mod fp8;
mod values;

pub use values::{RowFactors, Values};

/// The format of a tensor's values.
///
/// A quantised format stores blocks of 32 or 256 values, as ggml does. The other formats have blocks of one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// 32-bit floats, as in memory.
    F32,
    /// 16-bit floats with 5 exponent bits.
    F16,
    /// The upper 16 bits of 32-bit floats.
    Bf16,
    /// 8-bit floats with 4 exponent bits and no infinities.
    F8E4m3,
    /// 8-bit floats with 5 exponent bits.
    F8E5m2,
    /// 8-bit integers with a scale for 32 values.
    Q8_0,
    /// 4-bit integers with a scale for 32 values.
    Q4_0,
    /// 4-bit integers with a scale and a minimum for 32 values.
    Q4_1,
    /// 5-bit integers with a scale for 32 values.
    Q5_0,
    /// 5-bit integers with a scale and a minimum for 32 values.
    Q5_1,
    /// 2-bit integers with a scale and a minimum for 16 values.
    Q2K,
    /// 3-bit integers with a scale for 16 values.
    Q3K,
    /// 4-bit integers with a scale and a minimum for 32 values.
    Q4K,
    /// 5-bit integers with a scale and a minimum for 32 values.
    Q5K,
    /// 6-bit integers with a scale for 16 values.
    Q6K,
}

impl Format {
    /// Returns the number of values of a block.
    pub const fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8E4m3 | Self::F8E5m2 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Returns the number of bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4m3 | Self::F8E5m2 => 1,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Returns the number of bytes of `count` values. Returns `None` if they are not whole blocks, or too many.
    pub fn bytes_of(self, count: usize) -> Option<usize> {
        let blocks = count.is_multiple_of(self.block_values()).then_some(count / self.block_values())?;
        blocks.checked_mul(self.block_bytes())
    }

    /// Returns the name of the format in the tools of GGUF and safetensors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F8E4m3 => "F8_E4M3",
            Self::F8E5m2 => "F8_E5M2",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Returns the positions of the f16 scales in a block of a quantised format.
    pub const fn scales(self) -> &'static [usize] {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::F8E4m3 | Self::F8E5m2 => &[],
            Self::Q8_0 | Self::Q4_0 | Self::Q5_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => &[80, 82],
            Self::Q3K => &[108],
            Self::Q6K => &[208],
        }
    }

    /// Converts the values from index `first`, which is the first of a block, to f32. `out` has room for whole blocks.
    ///
    /// Indices that do not exist leave `out` as it is.
    pub fn widen_from(self, bytes: &[u8], first: usize, out: &mut [f32]) {
        let range = self.bytes_of(first).zip(self.bytes_of(out.len()));
        let part = range.and_then(|(start, length)| bytes.get(start..start + length));
        part.into_iter().for_each(|part| self.widen(part, out));
    }

    /// Converts whole blocks to f32. Bytes or values without a counterpart are ignored.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        // The compiler vectorizes the loops for each instruction set that the machine may have.
        vectorized!(match self {
            Self::F32 => blocks::each(bytes, out, |bytes, [out]| *out = f32::from_le_bytes(*bytes)),
            Self::F16 => blocks::each(bytes, out, |bytes, [out]| *out = widen_f16(u16::from_le_bytes(*bytes))),
            Self::Bf16 => blocks::each(bytes, out, |bytes: &[u8; 2], [out]| {
                *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }),
            Self::F8E4m3 => blocks::each(bytes, out, |[code], [out]| *out = fp8::value_of(&fp8::E4M3, *code)),
            Self::F8E5m2 => blocks::each(bytes, out, |[code], [out]| *out = fp8::value_of(&fp8::E5M2, *code)),
            Self::Q8_0 => blocks::each(bytes, out, blocks::q8_0),
            Self::Q4_0 => blocks::each(bytes, out, blocks::q4_0),
            Self::Q4_1 => blocks::each(bytes, out, blocks::q4_1),
            Self::Q5_0 => blocks::each(bytes, out, blocks::q5_0),
            Self::Q5_1 => blocks::each(bytes, out, blocks::q5_1),
            Self::Q2K => blocks::each(bytes, out, blocks::q2_k),
            Self::Q3K => blocks::each(bytes, out, blocks::q3_k),
            Self::Q4K => blocks::each(bytes, out, blocks::q4_k),
            Self::Q5K => blocks::each(bytes, out, blocks::q5_k),
            Self::Q6K => blocks::each(bytes, out, blocks::q6_k),
        });
    }
}

/// Converts a 16-bit float. The compiler vectorizes this, unlike a conversion that depends on the processor.
#[inline(always)]
fn widen_f16(bits: u16) -> f32 {
    /// The exponent of the smallest normal number, 2^-14, as f32.
    const SMALLEST: u32 = 113 << 23;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let value = if magnitude >= 0x7c00 << 13 {
        // Infinite, or not a number.
        magnitude | f32::INFINITY.to_bits()
    } else if magnitude < 1 << 23 {
        // Subnormal: the number with this mantissa and the smallest exponent is 2^-14 too large.
        (f32::from_bits(magnitude + SMALLEST) - f32::from_bits(SMALLEST)).to_bits()
    } else {
        magnitude + ((127 - 15) << 23)
    };
    f32::from_bits(value | u32::from(bits & 0x8000) << 16)
}
