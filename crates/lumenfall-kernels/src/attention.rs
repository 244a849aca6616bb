//! Attention that never stores the whole score matrix.

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::math;
use super::transpose::transpose;

/// The number of queries that one task processes. Their scores for all keys fit into the L2 cache.
const QUERY_BLOCK: usize = 64;

/// The keys that each query attends to.
#[derive(Clone, Copy, Debug)]
pub enum Mask<'a> {
    /// All keys.
    None,
    /// The keys at the query's position and before it.
    Causal,
    /// All keys, with a bias `[heads, queries, keys]` added to the scores.
    Bias(&'a [f32]),
}

/// Rows of `width` values: the concatenation of all heads.
#[derive(Clone, Copy)]
pub struct Sequence<'a> {
    /// The rows one after another.
    pub values: &'a [f32],
    /// The number of values of a row.
    pub width: usize,
}

impl Sequence<'_> {
    fn rows(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }
}

/// Computes `softmax(scale * q·kᵀ + mask)·v` for each head: `[queries, width]`.
pub fn attention(
    q: Sequence<'_>,
    k: Sequence<'_>,
    v: Sequence<'_>,
    heads: usize,
    scale: f32,
    mask: Mask<'_>,
) -> Vec<f32> {
    match mask {
        Mask::None => masked(q, k, v, heads, scale, |_, _, _| {}),
        Mask::Causal => masked(q, k, v, heads, scale, |_, query, scores| {
            scores.iter_mut().skip(query + 1).for_each(|score| *score = f32::NEG_INFINITY);
        }),
        Mask::Bias(bias) => {
            let (queries, keys) = (q.rows(), k.rows());
            masked(q, k, v, heads, scale, |head, query, scores| {
                let row = bias.get((head * queries + query) * keys..).unwrap_or(&[]);
                scores.iter_mut().zip(row).for_each(|(score, bias)| *score += bias);
            })
        }
    }
}

/// Calls `adjust(head, query, scores)` before the softmax, which may change the scores of the query.
#[allow(clippy::indexing_slicing, reason = "offsets are multiples of the head width below the row width")]
fn masked(
    q: Sequence<'_>,
    k: Sequence<'_>,
    v: Sequence<'_>,
    heads: usize,
    scale: f32,
    adjust: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let dim = q.width / heads;
    let keys = k.rows();
    // Each block of queries reads the keys in this order.
    let mut transposed = vec![0f32; k.values.len()];
    transpose(&mut transposed, keys, dim, |key, column, values| {
        values.copy_from_slice(&k.values[key * k.width + column..][..values.len()]);
    });
    let mut out = vec![0f32; q.values.len()];
    let blocks: Vec<&mut [f32]> = out.chunks_mut(QUERY_BLOCK * q.width).collect();
    blocks.into_par_iter().enumerate().for_each(|(block, out)| {
        let first = block * QUERY_BLOCK;
        let queries = out.len() / q.width;
        let mut scores = vec![0f32; queries * keys];
        for head in 0..heads {
            let column = head * dim;
            let head_q = Matrix::row_major(&q.values[first * q.width + column..], queries, dim, q.width);
            let head_k = Matrix::row_major(&transposed[column * keys..], dim, keys, keys);
            let head_v = Matrix::row_major(&v.values[column..], keys, dim, v.width);
            matmul(&mut scores, keys, Write::Replace, scale, head_q, head_k, Threads::One);
            vectorized!({
                for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                    adjust(head, first + row, scores);
                    softmax(scores);
                }
            });
            let weights = Matrix::row_major(&scores, queries, keys, keys);
            matmul(&mut out[column..], q.width, Write::Replace, 1.0, weights, head_v, Threads::One);
        }
    });
    out
}

#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let max = math::max(scores);
    scores.iter_mut().for_each(|score| *score = math::exp(*score - max));
    let inverse = 1.0 / math::sum(scores, |score| score);
    scores.iter_mut().for_each(|score| *score *= inverse);
}
