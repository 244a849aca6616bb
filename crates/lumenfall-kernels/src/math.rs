//! Elementary functions that the compiler vectorizes.
//!
//! They do not use fused multiply-add, so that every CPU computes the same bits.

/// Computes `e^x` with an error of at most 2 units in the last place. The argument is clamped to −87…88.
///
/// Method: range reduction to `2^n · e^r`, |r| ≤ ln 2 / 2, and the polynomial of the Cephes library.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to the nearest integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let poly =
        ((((1.987_569_1e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1) * r + 0.5;
    let mantissa = poly * r * r + r + 1.0;
    let exponent = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    mantissa * exponent
}

/// Computes `x * sigmoid(k * x)`: SiLU for k = 1, CLIP's quick GELU for k = 1.702.
#[inline(always)]
pub(super) fn swish(x: f32, k: f32) -> f32 {
    x / (1.0 + exp(-k * x))
}

/// Computes the tanh approximation of GELU, using `tanh(u) = 2 * sigmoid(2u) − 1`.
#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    // 2·√(2/π)
    const K: f32 = 1.595_769;
    x / (1.0 + exp(-K * (x + 0.044_715 * x * x * x)))
}

/// Sums `term` over a slice in 16 independent lanes, so that the loop vectorizes and the order is fixed.
#[inline(always)]
pub(super) fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += term(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += term(*value);
    }
    lanes.iter().sum()
}

/// Returns the largest value of a slice.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}
