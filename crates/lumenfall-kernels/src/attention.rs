//! Attention that never stores the whole score matrix.

use rayon::prelude::*;

use super::gemm::{Matrix, Threads, Write, matmul};
use super::math;
use super::transpose::transpose;

/// The number of queries that one task processes. In an image of 512x512 pixels, their scores for all keys fit into the second-level
/// cache.
pub const QUERIES: usize = 96;

/// The number of keys that are multiplied at a time. They remain in the first-level cache for all queries of a task.
const KEYS: usize = 64;

/// The number of values in a cache line.
const LINE: usize = 16;

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
    let (mut k_buffer, mut v_buffer, mut out) = (Vec::new(), Vec::new(), vec![0f32; q.values.len()]);
    let (k, v) = (transposed_keys(k, dim, &mut k_buffer), gathered_values(v, dim, &mut v_buffer));
    // Not a power of two: rows at such a distance would displace each other from the cache.
    let stride = keys.next_multiple_of(KEYS) + LINE;
    let buffers = || (Vec::new(), Vec::new(), Vec::new());
    // Successive blocks are of the same head, so its keys and values stay in the cache.
    blocks(&mut out, q.width, dim).into_par_iter().for_each_init(buffers, |(scores, sums, product), mut block| {
        let Block { head, first, rows } = &mut block;
        let (k, v) = (&k[*head * dim * (stride - LINE)..], &v[*head * dim * keys..]);
        let q = Matrix::row_major(&q.values[*first * q.width + *head * dim..], rows.len(), dim, q.width);
        let scores = aligned(scores, rows.len() * stride);
        let product = aligned(product, rows.len() * dim);
        for first_key in (0..keys).step_by(KEYS) {
            let k = Matrix::row_major(&k[first_key * dim..], dim, KEYS, KEYS);
            matmul(&mut scores[first_key..], stride, Write::Replace, scale, q, k, Threads::One);
        }
        sums.clear();
        vectorized!({
            for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
                adjust(*head, *first + row, &mut scores[..keys]);
                sums.push(exponentials(&mut scores[..keys]));
            }
        });
        for first_key in (0..keys).step_by(KEYS) {
            let count = KEYS.min(keys - first_key);
            let weights = Matrix::row_major(&scores[first_key..], rows.len(), count, stride);
            let v = Matrix::row_major(&v[first_key * dim..], count, dim, dim);
            let write = if first_key == 0 { Write::Replace } else { Write::Add };
            matmul(product, dim, write, 1.0, weights, v, Threads::One);
        }
        for ((out, product), sum) in rows.iter_mut().zip(product.chunks_exact(dim)).zip(&*sums) {
            let inverse = 1.0 / sum;
            out.iter_mut().zip(product).for_each(|(out, product)| *out = product * inverse);
        }
    });
    out
}

/// Returns the keys of each head, as matrices `[dim, KEYS]` one after another. Keys that do not exist are 0.
#[allow(clippy::indexing_slicing, reason = "there is at least one key")]
fn transposed_keys<'a>(k: Sequence<'_>, dim: usize, buffer: &'a mut Vec<f32>) -> &'a mut [f32] {
    let blocks = k.rows().div_ceil(KEYS);
    let out = aligned(buffer, blocks * KEYS * k.width);
    out.par_chunks_exact_mut(dim * KEYS).enumerate().for_each_init(Vec::new, |buffer, (index, out)| {
        let (head, first) = (index / blocks, index % blocks * KEYS);
        transpose(out, KEYS, buffer, |key, values| {
            match k.values.get((first + key) * k.width + head * dim..).and_then(|row| row.get(..dim)) {
                Some(row) => values.copy_from_slice(row),
                None => values.fill(0.0),
            }
        });
    });
    out
}

/// Returns the values of each head, as matrices `[keys, dim]` one after another.
fn gathered_values<'a>(v: Sequence<'_>, dim: usize, buffer: &'a mut Vec<f32>) -> &'a mut [f32] {
    let out = aligned(buffer, v.values.len());
    out.par_chunks_exact_mut(v.rows() * dim).enumerate().for_each(|(head, out)| {
        let rows = v.values.chunks_exact(v.width).filter_map(|row| row.chunks_exact(dim).nth(head));
        out.chunks_exact_mut(dim).zip(rows).for_each(|(out, row)| out.copy_from_slice(row));
    });
    out
}

/// Returns `count` values that begin with a cache line. A vector that crosses two lines would take longer to load.
fn aligned(values: &mut Vec<f32>, count: usize) -> &mut [f32] {
    values.resize(count + LINE, 0.0);
    let start = values.as_ptr().align_offset(size_of::<[f32; LINE]>()).min(LINE);
    values.split_at_mut(start).1.split_at_mut(count).0
}

/// The part of the output that one task computes.
struct Block<'a> {
    head: usize,
    /// The first query.
    first: usize,
    /// The values of the head in the row of each query.
    rows: Vec<&'a mut [f32]>,
}

/// Divides rows of `width` values into blocks of one head each, of `dim` values.
fn blocks(out: &mut [f32], width: usize, dim: usize) -> Vec<Block<'_>> {
    let queries = out.len() / width;
    let starts = (0..width / dim).flat_map(|head| (0..queries).step_by(QUERIES).map(move |first| (head, first)));
    let block = |(head, first)| Block { head, first, rows: Vec::with_capacity(QUERIES) };
    let mut blocks: Vec<Block<'_>> = starts.map(block).collect();
    let blocks_of_head = queries.div_ceil(QUERIES);
    for (query, row) in out.chunks_exact_mut(width).enumerate() {
        let of_query = blocks.iter_mut().skip(query / QUERIES).step_by(blocks_of_head);
        of_query.zip(row.chunks_exact_mut(dim)).for_each(|(block, row)| block.rows.push(row));
    }
    blocks
}

/// Replaces each score with `exp(score - maximum)`, and returns their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32]) -> f32 {
    let max = math::max(scores);
    scores.iter_mut().for_each(|score| *score = math::exp(*score - max));
    math::sum(scores, |score| score)
}
