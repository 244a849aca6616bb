//! Attention over one sequence.

use std::ops::Range;

use super::product::{Body, Right, multiply};
use super::shape::{aligned, concat, permute};
use super::{Call, matrices, spread};
use crate::error::Result;
use crate::gpu::{Gpu, Matrices, View};
use crate::layers::Mask;
use crate::tensor::Tensor;

/// The maximum width of a head whose values fit into a thread's registers.
const MAX_WIDTH: usize = 128;

/// The number of scores that are in memory at a time: 64 MiB.
const SCORES: usize = 1 << 24;

/// The number of operations after which attention is divided: less than a second of a slow integrated GPU, where attention is slower
/// than products.
const DISPATCHED_OPERATIONS: u64 = 20_000_000_000;

/// Computes `softmax(scale * q·kᵀ + mask)·v` for each head: `[queries, width]`.
pub(crate) fn attention(
    gpu: &Gpu,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scale: f32,
    mask: Mask<'_>,
) -> Result<Tensor> {
    let ([queries, width], [keys, _]) = (q.dims()?, k.dims()?);
    let head = width / heads;
    let fitting = |matrices: &Matrices| matrices.fit_attention(head, &gpu.0.limits);
    if matches!(mask, Mask::None)
        && let Some(matrices) = gpu.attention_matrices().filter(fitting)
    {
        return with_matrices(gpu, matrices, [q, k, v], heads, scale);
    }
    if head.is_multiple_of(4) && head <= MAX_WIDTH {
        return fused(gpu, [q, k, v], heads, scale, mask);
    }
    if heads == 1 {
        return one_head(gpu, [q, k, v], scale, mask, 0);
    }
    // [tokens, heads, head] -> [heads, tokens, head]
    let [q, k, v] = [(q, queries), (k, keys), (v, keys)]
        .map(|(x, tokens)| permute(gpu, x, &[heads, tokens, head], &[head, width, 1]));
    let (q, k, v) = (q?, k?, v?);
    let attended = (0..heads).map(|index| {
        let part = |x: &Tensor, tokens| x.rows(index..index + 1)?.reshape(&[tokens, head]);
        one_head(gpu, [&part(&q, queries)?, &part(&k, keys)?, &part(&v, keys)?], scale, mask, index)
    });
    let attended = attended.collect::<Result<Vec<_>>>()?;
    let attended = concat(gpu, &attended.iter().collect::<Vec<_>>(), &[heads, queries, head])?;
    permute(gpu, &attended, &[queries, heads, head], &[head, queries * head, 1])?.reshape(&[queries, width])
}

/// Computes all heads in one kernel, which keeps no scores in memory.
fn fused(gpu: &Gpu, [q, k, v]: [&Tensor; 3], heads: usize, scale: f32, mask: Mask<'_>) -> Result<Tensor> {
    let ([queries, width], [keys, _]) = (q.dims()?, k.dims()?);
    let head = width / heads;
    let view = |x: &Tensor| aligned(gpu, x.view(gpu)?);
    let [q_view, k, v] = [view(q)?, view(k)?, view(v)?];
    let (masked, bias) = expressions(mask, "p.bias + (head * p.queries + query) * p.keys + key");
    let bias_view = bias_view(gpu, mask, &q_view)?;
    let out = gpu.buffer(queries * width)?;
    let source = || {
        let template = include_str!("attention.wgsl").replace("$WIDTH", &format!("{}u", head / 4));
        template.replace("$MASKED", masked).replace("$BIAS", &bias)
    };
    for part in parts(queries, 64, keys * width) {
        gpu.call(&Call {
            name: format!("attention {head} {masked} {bias}"),
            source: &source,
            inputs: &[(&q_view).into(), (&k).into(), (&v).into(), (&bias_view).into()],
            output: &out.buffer,
            parameters: &[queries as u32, keys as u32, width as u32, part.start as u32, scale.to_bits()],
            workgroups: [part.len().div_ceil(64) as u64, heads as u64],
            operations: 4 * (part.len() * keys * width) as u64,
        })?;
    }
    Tensor::on_gpu(out, &[queries, width])
}

/// Divides queries into parts of whole tiles, each of which is one dispatch. A query has `products` products of queries and keys, and as
/// many of weights and values.
fn parts(queries: usize, tile: usize, products: usize) -> impl Iterator<Item = Range<usize>> {
    let tiles = DISPATCHED_OPERATIONS / (4 * (tile * products) as u64).max(1);
    let step = tile * tiles.max(1) as usize;
    (0..queries).step_by(step).map(move |first| first..queries.min(first + step))
}

/// Computes all heads in one kernel with cooperative matrices, in which the factors of products are f16.
pub(crate) fn with_matrices(
    gpu: &Gpu,
    matrices: Matrices,
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scale: f32,
) -> Result<Tensor> {
    let ([queries, width], [keys, _]) = (q.dims()?, k.dims()?);
    let head = width / heads;
    let view = |x: &Tensor| aligned(gpu, x.view(gpu)?);
    let [q, k, v] = [view(q)?, view(k)?, view(v)?];
    let out = gpu.buffer(queries * width)?;
    let tile = 4 * matrices.side as usize;
    for part in parts(queries, tile, keys * width) {
        gpu.call(&Call {
            name: format!("attention {matrices:?} {head}"),
            source: &|| matrices::attention(matrices, head as u32),
            inputs: &[(&q).into(), (&k).into(), (&v).into()],
            output: &out.buffer,
            parameters: &[queries as u32, keys as u32, width as u32, part.start as u32, scale.to_bits()],
            workgroups: [part.len().div_ceil(tile) as u64, heads as u64],
            operations: 4 * (part.len() * keys * width) as u64,
        })?;
    }
    Tensor::on_gpu(out, &[queries, width])
}

/// Computes one head as two products with a softmax between them.
fn one_head(gpu: &Gpu, [q, k, v]: [&Tensor; 3], scale: f32, mask: Mask<'_>, head: usize) -> Result<Tensor> {
    let ([queries, width], [keys, _]) = (q.dims()?, k.dims()?);
    let bias = match mask {
        Mask::Bias(bias) => Some(bias.rows(head..head + 1)?),
        Mask::None | Mask::Causal => None,
    };
    let mask = bias.as_ref().map_or(mask, Mask::Bias);
    let (k, v) = (k.view(gpu)?, permute(gpu, v, &[width, keys], &[1, width])?.view(gpu)?);
    let rows = (SCORES / keys.max(1)).clamp(1, queries.max(1));
    let parts = (0..queries).step_by(rows).map(|first| {
        let count = rows.min(queries - first);
        let q = q.rows(first..first + count)?.view(gpu)?;
        let scores = multiply(gpu, Body::Tiled, &q, count, Right::rows(&k, width, keys), None, None)?;
        let weights = softmax(gpu, &scores, [count, keys, first], scale, mask)?;
        Tensor::on_gpu(
            multiply(gpu, Body::Tiled, &weights, count, Right::rows(&v, keys, width), None, None)?,
            &[count, width],
        )
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    match parts.as_slice() {
        [one] => Ok(one.clone()),
        parts => concat(gpu, &parts.iter().collect::<Vec<_>>(), &[queries, width]),
    }
}

/// Computes the softmax of rows of scores. `first` is the query of the first row.
fn softmax(gpu: &Gpu, scores: &View, [rows, keys, first]: [usize; 3], scale: f32, mask: Mask<'_>) -> Result<View> {
    let (masked, bias) = expressions(mask, "p.bias + query * p.keys + key");
    let bias_view = bias_view(gpu, mask, scores)?;
    let out = gpu.buffer(rows * keys)?;
    gpu.call(&Call {
        name: format!("softmax {masked} {bias}"),
        source: &|| include_str!("softmax.wgsl").replace("$MASKED", masked).replace("$BIAS", &bias),
        inputs: &[scores.into(), (&bias_view).into()],
        output: &out.buffer,
        parameters: &[rows as u32, keys as u32, first as u32, scale.to_bits()],
        workgroups: spread(rows as u64),
        operations: 12 * (rows * keys) as u64,
    })?;
    Ok(out)
}

/// Returns the condition for a key that is left out, and the value that is added to its score.
fn expressions(mask: Mask<'_>, index: &str) -> (&'static str, String) {
    match mask {
        Mask::None => ("false", "0.0".into()),
        Mask::Causal => ("key > query", "0.0".into()),
        Mask::Bias(_) => ("false", format!("bias[{index}]")),
    }
}

/// Returns the bias, or `other` if there is none.
fn bias_view(gpu: &Gpu, mask: Mask<'_>, other: &View) -> Result<View> {
    match mask {
        Mask::Bias(bias) => bias.view(gpu),
        Mask::None | Mask::Causal => Ok(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn every_query_is_in_one_part_of_bounded_operations() {
        // 4429 tokens of 1536 values, as for an image of 1024x1024 pixels, and of 2048x2048.
        for (queries, parts_expected) in [(4429, 7), (16717, 88)] {
            let parts: Vec<_> = parts(queries, 64, queries * 1536).collect();
            assert_eq!(parts.len(), parts_expected);
            assert!(parts.iter().flat_map(Clone::clone).eq(0..queries));
            assert!(parts.iter().all(|part| part.start % 64 == 0 && 4 * part.len() * queries * 1536 <= 20_000_000_000));
        }
        assert!(parts(5, 64, 7).eq(std::iter::once(0..5)) && parts(0, 64, 0).next().is_none());
    }
}
