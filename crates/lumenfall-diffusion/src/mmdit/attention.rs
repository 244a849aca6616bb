//! The attention of a block: queries, keys and values of one stream, and attention over one or two streams.

use candle_core::Tensor;

use super::modulation::NORM_EPS;
use crate::config::DenoiserConfig;
use crate::error::Result;
use crate::ops::{Linear, Mask, Ops};
use crate::weights::Scope;

/// Queries, keys and values, each `[tokens, width]`.
pub(super) struct Qkv {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

/// The projections from one stream to its queries, keys and values.
#[derive(Debug)]
pub(super) struct QkvProjection {
    q: Linear,
    k: Linear,
    v: Linear,
    /// The weights `[head width]` of the RMS norms of queries and keys.
    norms: Option<(Tensor, Tensor)>,
}

impl QkvProjection {
    /// Reads the projections. `names` are the tensor names of query, key, value, query norm and key norm.
    pub(super) fn load(scope: &Scope<'_>, config: &DenoiserConfig, names: [&str; 5]) -> Result<Self> {
        let [q, k, v, norm_q, norm_k] = names;
        let (width, head) = (config.width(), config.attention_head_dim);
        let linear = |name: &str| Linear::load(&scope.at(name), width, width);
        let norm = |name: &str| scope.at(name).tensor("weight", &[head]);
        Ok(Self {
            q: linear(q)?,
            k: linear(k)?,
            v: linear(v)?,
            norms: match config.qk_norm {
                Some(_) => Some((norm(norm_q)?, norm(norm_k)?)),
                None => None,
            },
        })
    }

    pub(super) fn forward(&self, ops: Ops, x: &Tensor) -> Result<Qkv> {
        let (q, k, v) = (ops.linear(x, &self.q)?, ops.linear(x, &self.k)?, ops.linear(x, &self.v)?);
        Ok(match &self.norms {
            Some((norm_q, norm_k)) => {
                Qkv { q: ops.rms_norm(&q, norm_q, NORM_EPS)?, k: ops.rms_norm(&k, norm_k, NORM_EPS)?, v }
            }
            None => Qkv { q, k, v },
        })
    }
}

impl Qkv {
    /// Concatenates the tokens of two streams.
    pub(super) fn concat(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            q: Tensor::cat(&[&self.q, &other.q], 0)?,
            k: Tensor::cat(&[&self.k, &other.k], 0)?,
            v: Tensor::cat(&[&self.v, &other.v], 0)?,
        })
    }

    /// Computes full attention: `[tokens, width]`.
    pub(super) fn attention(&self, ops: Ops, heads: usize) -> Result<Tensor> {
        let scale = 1.0 / ((self.q.dim(1)? / heads) as f32).sqrt();
        Ok(ops.attention(&self.q, &self.k, &self.v, heads, scale, Mask::None)?)
    }
}
