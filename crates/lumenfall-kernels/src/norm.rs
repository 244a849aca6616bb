//! Normalization over the last dimension.

use rayon::prelude::*;

use super::activation::CHUNK;
use super::math;

/// Computes `normalized(x) * (base + scale) + shift` for each row, as wide as `scale`.
pub fn layer_norm(x: &[f32], eps: f64, base: f32, scale: &[f32], shift: &[f32]) -> Vec<f32> {
    map_rows(
        x,
        scale.len(),
        #[inline(always)]
        |from, to| {
            let count = from.len() as f32;
            let mean = math::sum(from, |v| v) / count;
            let variance = math::sum(from, |v| (v - mean) * (v - mean)) / count;
            let inverse = 1.0 / (variance + eps as f32).sqrt();
            for (((to, from), scale), shift) in to.iter_mut().zip(from).zip(scale).zip(shift) {
                *to = (from - mean) * inverse * (base + scale) + shift;
            }
        },
    )
}

/// Computes `x / √(mean(x²) + eps) * weight` for each group of `weight`'s length.
pub fn rms_norm(x: &[f32], eps: f64, weight: &[f32]) -> Vec<f32> {
    map_rows(
        x,
        weight.len(),
        #[inline(always)]
        |from, to| {
            let mean = math::sum(from, |v| v * v) / from.len() as f32;
            let inverse = 1.0 / (mean + eps as f32).sqrt();
            to.iter_mut().zip(from).zip(weight).for_each(|((to, v), w)| *to = v * inverse * w);
        },
    )
}

/// Maps each row of `width` values to a row of the result, in parallel.
fn map_rows(x: &[f32], width: usize, map: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    let width = width.max(1);
    let chunk = (CHUNK / width).max(1) * width;
    let mut out = vec![0f32; x.len()];
    out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
        vectorized!(for (from, to) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            map(from, to);
        });
    });
    out
}
