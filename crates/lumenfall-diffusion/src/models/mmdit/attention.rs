//! The attention of a block: queries, keys and values of one stream, and attention over one or two streams.

use super::modulation::NORM_EPS;
use crate::checkpoint::config::DenoiserConfig;
use crate::error::Result;
use crate::layers::{Linear, Mask, RmsNorm, attention};
use crate::tensor::Tensor;
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
    /// The norms of each head of queries and keys.
    norms: Option<(RmsNorm, RmsNorm)>,
}

impl QkvProjection {
    /// Reads the projections. `names` are the tensor names of query, key, value, query norm and key norm.
    pub(super) fn load(scope: &Scope<'_>, config: &DenoiserConfig, names: [&str; 5]) -> Result<Self> {
        let [q, k, v, norm_q, norm_k] = names;
        let (width, head) = (config.width(), config.attention_head_dim);
        let linear = |name: &str| Linear::load(&scope.at(name), width, width);
        let norm = |name: &str| RmsNorm::load(&scope.at(name), head, NORM_EPS);
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

    pub(super) fn forward(&self, x: &Tensor) -> Result<Qkv> {
        let (q, k, v) = (self.q.forward(x)?, self.k.forward(x)?, self.v.forward(x)?);
        Ok(match &self.norms {
            Some((norm_q, norm_k)) => Qkv { q: norm_q.forward(&q)?, k: norm_k.forward(&k)?, v },
            None => Qkv { q, k, v },
        })
    }
}

impl Qkv {
    /// Concatenates the tokens of two streams.
    pub(super) fn concat(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            q: Tensor::concat(&[&self.q, &other.q])?,
            k: Tensor::concat(&[&self.k, &other.k])?,
            v: Tensor::concat(&[&self.v, &other.v])?,
        })
    }

    /// Computes full attention: `[tokens, width]`.
    pub(super) fn attention(&self, heads: usize) -> Result<Tensor> {
        let scale = 1.0 / ((self.q.width() / heads) as f32).sqrt();
        attention(&self.q, &self.k, &self.v, heads, scale, Mask::None)
    }
}
