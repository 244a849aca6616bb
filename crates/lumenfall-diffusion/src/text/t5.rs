//! The T5 v1.1 encoder.

use candle_core::Tensor;

use super::embedding::embed;
use crate::config::T5Config;
use crate::error::Result;
use crate::ops::{Activation, Linear, Mask, Ops};
use crate::weights::{Scope, Weights};

/// A T5 encoder. It reads its blocks one at a time, because all blocks of the XXL encoder need 9.5 GB in f16.
#[derive(Debug)]
pub(crate) struct T5 {
    weights: Weights,
    config: T5Config,
    ops: Ops,
}

#[derive(Debug)]
struct Block {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    fn load(scope: &Scope<'_>, config: &T5Config) -> Result<Self> {
        let (width, inner, heads) = (config.d_model, config.d_ff, config.num_heads * config.d_kv);
        let (attention, mlp) = (scope.at("layer.0.SelfAttention"), scope.at("layer.1.DenseReluDense"));
        Ok(Self {
            attention_norm: scope.at("layer.0.layer_norm").tensor("weight", &[width])?,
            query: Linear::load_without_bias(&attention.at("q"), width, heads)?,
            key: Linear::load_without_bias(&attention.at("k"), width, heads)?,
            value: Linear::load_without_bias(&attention.at("v"), width, heads)?,
            output: Linear::load_without_bias(&attention.at("o"), heads, width)?,
            mlp_norm: scope.at("layer.1.layer_norm").tensor("weight", &[width])?,
            gate: Linear::load_without_bias(&mlp.at("wi_0"), width, inner)?,
            up: Linear::load_without_bias(&mlp.at("wi_1"), width, inner)?,
            down: Linear::load_without_bias(&mlp.at("wo"), inner, width)?,
        })
    }

    fn forward(&self, ops: Ops, x: &Tensor, config: &T5Config, bias: &Tensor) -> Result<Tensor> {
        let normed = ops.rms_norm(x, &self.attention_norm, config.layer_norm_epsilon)?;
        let (q, k, v) =
            (ops.linear(&normed, &self.query)?, ops.linear(&normed, &self.key)?, ops.linear(&normed, &self.value)?);
        let attended = ops.attention(&q, &k, &v, config.num_heads, 1.0, Mask::Bias(bias))?;
        let x = ops.add(x, &ops.linear(&attended, &self.output)?)?;
        let normed = ops.rms_norm(&x, &self.mlp_norm, config.layer_norm_epsilon)?;
        let gate = ops.linear_activation(&normed, &self.gate, Activation::GeluTanh)?;
        let hidden = ops.multiply(&gate, &ops.linear(&normed, &self.up)?)?;
        Ok(ops.add(&x, &ops.linear(&hidden, &self.down)?)?)
    }
}

impl T5 {
    /// Checks the small tensors and, if only headers are read, every block.
    pub(crate) fn load(weights: Weights, config: T5Config, ops: Ops) -> Result<Self> {
        let t5 = Self { weights, config, ops };
        t5.encoder().at("final_layer_norm").tensor("weight", &[t5.config.d_model])?;
        t5.position_bias(1)?;
        if t5.encoder().reads_headers_only() {
            (0..t5.config.num_layers).try_for_each(|i| t5.block(i).map(|_| ()))?;
        }
        Ok(t5)
    }

    fn block(&self, index: usize) -> Result<Block> {
        Block::load(&self.encoder().at(format_args!("block.{index}")), &self.config)
    }

    pub(crate) fn width(&self) -> usize {
        self.config.d_model
    }

    /// Encodes the token ids of several prompts, which include the end and padding tokens: `[tokens, width]` for each.
    ///
    /// Each block is read once for all prompts. `check_cancelled` is called before each block.
    pub(crate) fn forward(&self, prompts: &[&[u32]], check_cancelled: &dyn Fn() -> Result<()>) -> Result<Vec<Tensor>> {
        let root = self.weights.root();
        let table = if root.contains("shared.weight") { root.at("shared") } else { root.at("encoder.embed_tokens") };
        let embedded =
            prompts.iter().map(|ids| Ok((embed(&table, ids, self.config.d_model)?, self.position_bias(ids.len())?)));
        let mut sequences = embedded.collect::<Result<Vec<_>>>()?;
        for i in 0..self.config.num_layers {
            let block = self.block(i)?;
            for (x, bias) in &mut sequences {
                check_cancelled()?;
                *x = block.forward(self.ops, x, &self.config, bias)?;
            }
        }
        let norm = self.encoder().at("final_layer_norm").tensor("weight", &[self.config.d_model])?;
        let normed = sequences.iter().map(|(x, _)| Ok(self.ops.rms_norm(x, &norm, self.config.layer_norm_epsilon)?));
        normed.collect()
    }

    fn encoder(&self) -> Scope<'_> {
        self.weights.root().at("encoder")
    }

    /// Returns the attention bias of block 0, which every block uses: `[heads, tokens, tokens]`.
    fn position_bias(&self, tokens: usize) -> Result<Tensor> {
        let (buckets, heads) = (self.config.relative_attention_num_buckets, self.config.num_heads);
        let scope = self.encoder().at("block.0.layer.0.SelfAttention.relative_attention_bias");
        let table = scope.tensor("weight", &[buckets, heads])?;
        let index = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key)));
        let index: Vec<u32> = index
            .map(|(query, key)| bucket(query, key, buckets, self.config.relative_attention_max_distance) as u32)
            .collect();
        let index = Tensor::from_vec(index, tokens * tokens, scope.device())?;
        // [tokens², heads] -> [heads, tokens, tokens]
        Ok(table.index_select(&index, 0)?.t()?.contiguous()?.reshape((heads, tokens, tokens))?)
    }
}

/// Returns the bucket of the distance from `query` to `key`.
///
/// One half of the buckets is for keys after the query, the other for keys before it. In each half, short distances have
/// their own buckets, and longer ones share logarithmic buckets up to `max_distance`.
fn bucket(query: usize, key: usize, buckets: usize, max_distance: usize) -> usize {
    let side = buckets / 2;
    let offset = if key > query { side } else { 0 };
    let distance = key.abs_diff(query);
    let exact = side / 2;
    if distance < exact {
        return offset + distance;
    }
    let fraction = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    offset + (exact + (fraction * (side - exact) as f32) as usize).min(side - 1)
}
