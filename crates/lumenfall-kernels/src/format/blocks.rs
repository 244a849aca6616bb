//! The blocks of ggml's quantised formats. Each function computes what ggml's reference implementation computes, in the
//! same order, so that the values are equal bit for bit.
#![allow(clippy::indexing_slicing, reason = "the positions are constants within the length of the arrays")]

use half::f16;

/// Converts blocks of `BYTES` bytes to `VALUES` values each.
#[inline(always)]
pub(super) fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0).for_each(|(bytes, out)| block(bytes, out));
}

/// `[d: f16, codes: i8 × 32]`
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    let codes: [u8; 32] = part(block, 2);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(code as i8) * d;
    }
}

/// `[d: f16, codes: u4 × 32]`; the upper halves of the bytes are the values from 16.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    for (out, code) in out.iter_mut().zip(nibbles(part(block, 2))) {
        *out = d * (i32::from(code) - 8) as f32;
    }
}

/// `[d: f16, min: f16, codes: u4 × 32]`
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, min) = (scale(block, 0), scale(block, 2));
    for (out, code) in out.iter_mut().zip(nibbles(part(block, 4))) {
        *out = d * f32::from(code) + min;
    }
}

/// `[d: f16, fifth bits: u32, codes: u4 × 32]`
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = scale(block, 0);
    let codes = with_fifth_bits(nibbles(part(block, 6)), part(block, 2));
    for (out, code) in out.iter_mut().zip(codes) {
        *out = d * (code - 16) as f32;
    }
}

/// `[d: f16, min: f16, fifth bits: u32, codes: u4 × 32]`
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, min) = (scale(block, 0), scale(block, 2));
    let codes = with_fifth_bits(nibbles(part(block, 8)), part(block, 4));
    for (out, code) in out.iter_mut().zip(codes) {
        *out = d * code as f32 + min;
    }
}

/// `[scale and min of 16 values: (u4, u4) × 16, codes: u2 × 256, d: f16, dmin: f16]`
#[inline(always)]
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, dmin) = (scale(block, 80), scale(block, 82));
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (scale, min) = (d * f32::from(block[i] & 15), dmin * f32::from(block[i] >> 4));
        let (at, shift) = pairs(i);
        let codes: [u8; 16] = part(block, 16 + at);
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> shift & 3) - min;
        }
    }
}

/// `[third bits: u1 × 256, codes: u2 × 256, scales of 16 values: u6 × 16, d: f16]`
#[inline(always)]
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = scale(block, 108);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let low = block[96 + i % 8] >> (i / 8 * 4) & 15;
        let high = block[104 + i % 4] >> (i / 4 * 2) & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        let (at, shift) = pairs(i);
        let codes: [u8; 16] = part(block, 32 + at);
        let bits: [u8; 16] = part(block, i % 2 * 16);
        for ((out, code), bits) in out.iter_mut().zip(codes).zip(bits) {
            let code = code >> shift & 3 | (bits >> (i / 2) & 1) << 2;
            *out = scale * (i32::from(code) - 4) as f32;
        }
    }
}

/// `[d: f16, dmin: f16, scales and mins of 32 values: (u6, u6) × 8, codes: u4 × 256]`
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let scales = scales_and_mins(block);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scales[i];
        let codes: [u8; 32] = part(block, 16 + i / 2 * 32);
        let shift = i % 2 * 4;
        for (out, code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code >> shift & 15) - min;
        }
    }
}

/// `[d: f16, dmin: f16, scales and mins of 32 values: (u6, u6) × 8, fifth bits: u1 × 256, codes: u4 × 256]`
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let scales = scales_and_mins(block);
    let bits: [u8; 32] = part(block, 16);
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scales[i];
        let codes: [u8; 32] = part(block, 48 + i / 2 * 32);
        let shift = i % 2 * 4;
        for ((out, code), bits) in out.iter_mut().zip(codes).zip(bits) {
            *out = scale * f32::from(code >> shift & 15 | (bits >> i & 1) << 4) - min;
        }
    }
}

/// `[lower bits: u4 × 256, upper bits: u2 × 256, scales of 16 values: i8 × 16, d: f16]`
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = scale(block, 208);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[192 + i] as i8);
        // 128 values have 64 bytes of lower bits: first the lower halves of these bytes, then the upper halves.
        let lower: [u8; 16] = part(block, i / 8 * 64 + i % 4 * 16);
        let (at, shift) = pairs(i);
        let upper: [u8; 16] = part(block, 128 + at);
        for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
            let code = lower >> (i / 4 % 2 * 4) & 15 | (upper >> shift & 3) << 4;
            *out = scale * (i32::from(code) - 32) as f32;
        }
    }
}

/// Returns the position and the shift of the two bits of 16 values.
///
/// 128 values have 32 bytes: first the lowest two bits of these bytes, then the next two bits.
#[inline(always)]
fn pairs(i: usize) -> (usize, usize) {
    (i / 8 * 32 + i % 2 * 16, i / 2 % 4 * 2)
}

/// Returns the eight scales and mins of the formats Q4_K and Q5_K.
#[inline(always)]
fn scales_and_mins(block: &[u8]) -> [(f32, f32); 8] {
    let (d, dmin) = (scale(block, 0), scale(block, 2));
    let packed: [u8; 12] = part(block, 4);
    std::array::from_fn(|i| {
        let (scale, min) = match i {
            0..4 => (packed[i] & 63, packed[i + 4] & 63),
            // The upper two bits of the last four are those that the first four do not use.
            _ => (packed[i + 4] & 15 | packed[i - 4] >> 6 << 4, packed[i + 4] >> 4 | packed[i] >> 6 << 4),
        };
        (d * f32::from(scale), dmin * f32::from(min))
    })
}

/// Returns the lower halves of the bytes, then the upper halves.
#[inline(always)]
fn nibbles(bytes: [u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// Adds a fifth bit to each code.
#[inline(always)]
fn with_fifth_bits(codes: [u8; 32], bits: [u8; 4]) -> [i32; 32] {
    let bits = u32::from_le_bytes(bits);
    std::array::from_fn(|i| i32::from(codes[i]) + 16 * (bits >> i & 1) as i32)
}

#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes(part(block, at)).to_f32()
}

#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&block[at..at + N]);
    part
}
