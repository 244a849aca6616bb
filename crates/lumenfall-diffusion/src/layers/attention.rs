//! Attention over sequences.

use lumenfall_kernels::{self as kernels, Sequence};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

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

/// Computes the self-attention of several sequences of `tokens` tokens, which follow one another in `q`, `k` and `v`, each as
/// [`attention()`] does.
pub(crate) fn attention_of_each(
    [q, k, v]: [&Tensor; 3],
    tokens: usize,
    heads: usize,
    scale: f32,
    mask: Mask<'_>,
) -> Result<Tensor> {
    let [all, _] = q.dims()?;
    if all == tokens {
        return attention(q, k, v, heads, scale, mask);
    }
    let each = (0..all).step_by(tokens.max(1)).map(|first| {
        let rows = |sequences: &Tensor| sequences.rows(first..first + tokens);
        attention(&rows(q)?, &rows(k)?, &rows(v)?, heads, scale, mask)
    });
    let each = each.collect::<Result<Vec<_>>>()?;
    Tensor::concat(&each.iter().collect::<Vec<_>>())
}

/// Computes `softmax(scale * q·kᵀ + mask)·v` for each head: `[queries, width]`.
///
/// `q` is `[queries, width]`, `k` and `v` are `[keys, width]`. The width is the concatenation of all heads.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f32,
    mask: Mask<'_>,
) -> Result<Tensor> {
    let ([queries, width], [keys, key_width]) = (q.dims()?, k.dims()?);
    let mask_fits = match mask {
        Mask::Bias(bias) => bias.shape() == [heads, queries, keys],
        Mask::None | Mask::Causal => true,
    };
    if heads == 0 || width % heads != 0 || key_width != width || v.shape() != k.shape() || !mask_fits {
        let shapes = [q, k, v].map(Tensor::shape);
        return Err(Error::Compute(format!("attention of {heads} heads over {shapes:?}")));
    }
    #[cfg(feature = "gpu")]
    if let Some(gpu) = crate::gpu::of([q, k, v]) {
        return crate::gpu::kernels::attention(gpu, [q, k, v], heads, scale, mask);
    }
    let sequence = |tensor| Sequence { values: Tensor::values(tensor), width };
    let mask = match mask {
        Mask::None => kernels::Mask::None,
        Mask::Causal => kernels::Mask::Causal,
        Mask::Bias(bias) => kernels::Mask::Bias(bias.values()),
    };
    let values = kernels::attention(sequence(q), sequence(k), sequence(v), heads, scale, mask);
    Tensor::new(values, &[queries, width])
}
