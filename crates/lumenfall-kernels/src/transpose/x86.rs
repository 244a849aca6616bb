//! The transposition of 8x8 values in the registers of an x86 processor.
#![allow(unsafe_code, reason = "the processor must have the instructions, which is checked")]

use std::arch::x86_64::*;
use std::ops::Range;

use pulp::bytemuck::{cast, cast_slice};

use super::EncodedMatrix;
use crate::Format;

/// The number of rows and of columns that are transposed together.
const SIDE: usize = 8;

/// Writes the transpose of some rows of a matrix to the columns `group` of `out`, which has `rows` columns.
///
/// Returns false, and writes nothing, if the processor, the format or the shape is not supported.
pub(super) fn transpose_group(out: &mut [f32], rows: usize, group: Range<usize>, source: EncodedMatrix<'_>) -> bool {
    let is_whole = group.len().is_multiple_of(SIDE) && (out.len() / rows).is_multiple_of(SIDE);
    let convert = match source.format {
        Format::F32 => transpose_f32,
        Format::F16 => transpose_f16,
        Format::Bf16 => transpose_bf16,
        _ => return false,
    };
    let is_supported = is_whole && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
    if is_supported {
        // SAFETY: the processor has the instructions.
        unsafe { convert(out, rows, group, source) };
    }
    is_supported
}

#[target_feature(enable = "avx2,f16c")]
fn transpose_f32(out: &mut [f32], rows: usize, group: Range<usize>, source: EncodedMatrix<'_>) {
    blocks(out, rows, group, source, |bytes: [u8; 32]| cast(bytes));
}

#[target_feature(enable = "avx2,f16c")]
fn transpose_f16(out: &mut [f32], rows: usize, group: Range<usize>, source: EncodedMatrix<'_>) {
    blocks(out, rows, group, source, |bytes: [u8; 16]| _mm256_cvtph_ps(cast(bytes)));
}

#[target_feature(enable = "avx2,f16c")]
fn transpose_bf16(out: &mut [f32], rows: usize, group: Range<usize>, source: EncodedMatrix<'_>) {
    blocks(out, rows, group, source, |bytes: [u8; 16]| {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(cast(bytes))))
    });
}

/// Transposes all blocks of 8x8 values. `load` converts the bytes of the values in a row of a block.
#[target_feature(enable = "avx2,f16c")]
#[allow(clippy::indexing_slicing, reason = "the number of rows and of columns is a multiple of SIDE")]
fn blocks<const BYTES: usize>(
    out: &mut [f32],
    rows: usize,
    group: Range<usize>,
    EncodedMatrix { format, bytes, stride }: EncodedMatrix<'_>,
    load: impl Fn([u8; BYTES]) -> __m256,
) {
    for first in (0..group.len()).step_by(SIDE) {
        let sources: [&[[u8; BYTES]]; SIDE] =
            std::array::from_fn(|row| bytes[(first + row) * stride * format.block_bytes()..].as_chunks().0);
        for (column, out) in out.chunks_exact_mut(SIDE * rows).enumerate() {
            // A function that takes a closure would be compiled without the instructions.
            let mut block = [_mm256_setzero_ps(); SIDE];
            for (values, source) in block.iter_mut().zip(&sources) {
                *values = load(source[column]);
            }
            for (out, values) in out.chunks_exact_mut(rows).zip(&transposed(block)) {
                out[group.start + first..][..SIDE].copy_from_slice(cast_slice(std::slice::from_ref(values)));
            }
        }
    }
}

/// Transposes 8 rows of 8 values: pairs of values, then pairs of these pairs, then the halves.
#[target_feature(enable = "avx2,f16c")]
fn transposed([a, b, c, d, e, f, g, h]: [__m256; SIDE]) -> [__m256; SIDE] {
    let [a, b, c, d] = halves(a, b, c, d);
    let [e, f, g, h] = halves(e, f, g, h);
    [
        _mm256_permute2f128_ps::<0x20>(a, e),
        _mm256_permute2f128_ps::<0x20>(b, f),
        _mm256_permute2f128_ps::<0x20>(c, g),
        _mm256_permute2f128_ps::<0x20>(d, h),
        _mm256_permute2f128_ps::<0x31>(a, e),
        _mm256_permute2f128_ps::<0x31>(b, f),
        _mm256_permute2f128_ps::<0x31>(c, g),
        _mm256_permute2f128_ps::<0x31>(d, h),
    ]
}

/// Transposes 4 rows of 4 values in each half of 4 vectors.
#[target_feature(enable = "avx2,f16c")]
fn halves(a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; 4] {
    let (low_ab, high_ab) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (low_cd, high_cd) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    [
        _mm256_shuffle_ps::<0b01_00_01_00>(low_ab, low_cd),
        _mm256_shuffle_ps::<0b11_10_11_10>(low_ab, low_cd),
        _mm256_shuffle_ps::<0b01_00_01_00>(high_ab, high_cd),
        _mm256_shuffle_ps::<0b11_10_11_10>(high_ab, high_cd),
    ]
}
