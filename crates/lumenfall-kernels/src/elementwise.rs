//! Sums and products of two tensors.

use rayon::prelude::*;

use super::activation::CHUNK;

/// Computes `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    zip(
        x,
        y,
        1,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
    );
}

/// Computes `x -= y`.
pub fn subtract(x: &mut [f32], y: &[f32]) {
    zip(
        x,
        y,
        1,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x -= y),
    );
}

/// Computes the elementwise product `x *= y`.
pub fn multiply(x: &mut [f32], y: &[f32]) {
    zip(
        x,
        y,
        1,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x *= y),
    );
}

/// Computes `x += gate * y` for each row, which is as wide as `gate`.
pub fn gated_residual(x: &mut [f32], y: &[f32], gate: &[f32]) {
    let width = gate.len();
    zip(
        x,
        y,
        width,
        #[inline(always)]
        |x, y| {
            for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                x.iter_mut().zip(y).zip(gate).for_each(|((x, y), gate)| *x += y * gate);
            }
        },
    );
}

/// Calls `combine` for chunks of whole rows of `x` and `y`, in parallel. Both have rows of `width` values.
fn zip(x: &mut [f32], y: &[f32], width: usize, combine: impl Fn(&mut [f32], &[f32]) + Sync) {
    let width = width.max(1);
    let chunk = (CHUNK / width).max(1) * width;
    x.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).for_each(|(x, y)| vectorized!(combine(x, y)));
}
