//! Attention that never stores the whole score matrix.

use candle_core::{D, DType, Result, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::implementation::Ops;
use super::math;
use super::view::{Rows, with_rows, with_values};

/// The number of queries that one task processes. Their scores for all keys fit into the L2 cache.
const QUERY_BLOCK: usize = 64;

/// The keys that each query attends to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mask<'a> {
    /// All keys.
    None,
    /// The keys at the query's position and before it.
    Causal,
    /// All keys, with a bias `[heads, queries, keys]` added to the scores.
    Bias(&'a Tensor),
}

impl Ops {
    /// Computes `softmax(scale * q·kᵀ + mask)·v` for each head: `[queries, width]`.
    ///
    /// `q` is `[queries, width]`, `k` and `v` are `[keys, width]`. The width is the concatenation of all heads.
    pub(crate) fn attention(
        self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        heads: usize,
        scale: f32,
        mask: Mask<'_>,
    ) -> Result<Tensor> {
        let (queries, width) = q.dims2()?;
        if heads == 0 || width % heads != 0 || k.dim(1)? != width || v.shape() != k.shape() {
            bail!("attention of {heads} heads over {:?}, {:?}, {:?}", q.shape(), k.shape(), v.shape());
        }
        match self {
            Self::Reference => reference(q, k, v, heads, scale, mask),
            Self::Fused => with_rows(q, |q_rows| {
                with_rows(k, |k_rows| {
                    with_rows(v, |v_rows| {
                        let out = match mask {
                            Mask::None => fused(q_rows, k_rows, v_rows, heads, scale, |_, _, _| {}),
                            Mask::Causal => fused(q_rows, k_rows, v_rows, heads, scale, |_, query, scores| {
                                scores.iter_mut().skip(query + 1).for_each(|score| *score = f32::NEG_INFINITY);
                            }),
                            Mask::Bias(bias) => {
                                if bias.dims() != [heads, q_rows.rows, k_rows.rows] {
                                    bail!("the attention bias has an unexpected shape {:?}", bias.shape());
                                }
                                with_values(bias, |bias| {
                                    let bias = Rows::packed(bias, k_rows.rows);
                                    Ok(fused(q_rows, k_rows, v_rows, heads, scale, |head, query, scores| {
                                        let row = bias.row(head * q_rows.rows + query);
                                        scores.iter_mut().zip(row).for_each(|(score, bias)| *score += bias);
                                    }))
                                })?
                            }
                        };
                        Tensor::from_vec(out, (queries, width), q.device())
                    })
                })
            }),
        }
    }
}

fn reference(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, scale: f32, mask: Mask<'_>) -> Result<Tensor> {
    // [tokens, heads·dim] -> [heads, tokens, dim]
    let split = |x: &Tensor| -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        x.contiguous()?.reshape((tokens, heads, width / heads))?.transpose(0, 1)?.contiguous()
    };
    let (queries, width) = q.dims2()?;
    let keys = k.dim(0)?;
    let scores = (split(q)?.matmul(&split(k)?.transpose(1, 2)?)? * f64::from(scale))?;
    let scores = match mask {
        Mask::None => scores,
        Mask::Causal => {
            let mask = (0..queries)
                .flat_map(|query| (0..keys).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 }));
            let mask = Tensor::from_iter(mask, q.device())?.reshape((queries, keys))?.to_dtype(DType::F32)?;
            scores.broadcast_add(&mask)?
        }
        Mask::Bias(bias) => (scores + bias)?,
    };
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&split(v)?)?.transpose(0, 1)?.contiguous()?.reshape((queries, width))
}

/// Calls `adjust(head, query, scores)` before the softmax, which may change the scores of the query.
#[allow(clippy::indexing_slicing, reason = "offsets are multiples of the head width below the row width")]
fn fused(
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    heads: usize,
    scale: f32,
    adjust: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let dim = q.width / heads;
    let keys = k.rows;
    let arch = Arch::new();
    let mut out = vec![0f32; q.rows * q.width];
    let blocks: Vec<&mut [f32]> = out.chunks_mut(QUERY_BLOCK * q.width).collect();
    blocks.into_par_iter().enumerate().for_each(|(block, out)| {
        let first = block * QUERY_BLOCK;
        let queries = out.len() / q.width;
        let mut scores = vec![0f32; queries * keys];
        for head in 0..heads {
            let column = head * dim;
            let head_q = Matrix::row_major(&q.data[first * q.stride + column..], queries, dim, q.stride);
            let head_k = Matrix::row_major(&k.data[column..], keys, dim, k.stride);
            let head_v = Matrix::row_major(&v.data[column..], keys, dim, v.stride);
            matmul(&mut scores, keys, Write::Replace, scale, head_q, head_k.transposed(), Threads::One);
            arch.dispatch(|| {
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
