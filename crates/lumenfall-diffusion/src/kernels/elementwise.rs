//! Sums and products of two tensors.

use rayon::prelude::*;

use super::activation::CHUNK;

/// Calls `combine` for chunks of whole rows of `x` and `y`, in parallel. Both have rows of `width` values.
pub(crate) fn zip(x: &mut [f32], y: &[f32], width: usize, combine: impl Fn(&mut [f32], &[f32]) + Sync) {
    let width = width.max(1);
    let chunk = (CHUNK / width).max(1) * width;
    x.par_chunks_mut(chunk).zip(y.par_chunks(chunk)).for_each(|(x, y)| vectorized!(combine(x, y)));
}
