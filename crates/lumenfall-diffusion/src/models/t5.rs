//! The T5 v1.1 encoder.

use std::sync::Arc;

use crate::checkpoint::Part;
use crate::checkpoint::config::T5Config;
use crate::error::{Error, Result};
use crate::layers::{Activation, Linear, Mask, RmsNorm, add, attention_of_each, embed, multiply};
use crate::placement::Blocks;
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

/// The number of rows of the token embeddings of T5, whose tokenizer has 32,100 tokens.
const MAX_VOCABULARY: usize = 32_128;

/// A T5 encoder. It reads its weights while it computes, because those of the XXL encoder have 9.5 GB in f16.
#[derive(Debug)]
pub(crate) struct T5 {
    weights: Arc<Weights>,
    config: T5Config,
    blocks: Blocks<Block>,
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    mlp_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    fn load(scope: &Scope<'_>, config: &T5Config) -> Result<Self> {
        let (width, inner, heads) = (config.d_model, config.d_ff, config.num_heads * config.d_kv);
        let (attention, mlp) = (scope.at("layer.0.SelfAttention"), scope.at("layer.1.DenseReluDense"));
        Ok(Self {
            attention_norm: RmsNorm::load(&scope.at("layer.0.layer_norm"), width, config.layer_norm_epsilon)?,
            query: Linear::load_without_bias(&attention.at("q"), width, heads)?,
            key: Linear::load_without_bias(&attention.at("k"), width, heads)?,
            value: Linear::load_without_bias(&attention.at("v"), width, heads)?,
            output: Linear::load_without_bias(&attention.at("o"), heads, width)?,
            mlp_norm: RmsNorm::load(&scope.at("layer.1.layer_norm"), width, config.layer_norm_epsilon)?,
            gate: Linear::load_without_bias(&mlp.at("wi_0"), width, inner)?,
            up: Linear::load_without_bias(&mlp.at("wi_1"), width, inner)?,
            down: Linear::load_without_bias(&mlp.at("wo"), inner, width)?,
        })
    }

    /// Computes the block for prompts one after another, so that each weight is converted once for all. `bias` is
    /// `[heads, tokens, tokens]` with the number of tokens of each prompt.
    fn forward(&self, x: &Tensor, heads: usize, bias: &Tensor) -> Result<Tensor> {
        let normed = self.attention_norm.forward(x)?;
        let (q, k, v) = (self.query.forward(&normed)?, self.key.forward(&normed)?, self.value.forward(&normed)?);
        let [_, _, tokens] = bias.dims()?;
        let attended = attention_of_each([&q, &k, &v], tokens, heads, 1.0, Mask::Bias(bias))?;
        let x = add(self.output.forward(&attended)?, x)?;
        let normed = self.mlp_norm.forward(&x)?;
        let gate = self.gate.forward_activated(&normed, Activation::GeluTanh)?;
        let hidden = multiply(gate, &self.up.forward(&normed)?)?;
        add(self.down.forward(&hidden)?, &x)
    }
}

impl T5 {
    /// Checks the weights without reading them.
    pub(crate) fn open(Part { weights, config }: Part<T5Config>) -> Result<Self> {
        check_vocabulary(&weights)?;
        weights.check(|headers| {
            final_norm(headers, &config)?;
            bias_table(headers, &config)?;
            token_table(headers).rows("weight", config.d_model, 0, 1)?;
            (0..config.num_layers).try_for_each(|i| block(headers, &config, i).map(|_| ()))
        })?;
        let weights = Arc::new(weights);
        let blocks = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Blocks::new(config.num_layers, move |i, kept| block(&weights.root().streamed(!kept), &config, i))
        };
        Ok(Self { weights, config, blocks })
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the memory for prompts of a number of tokens, in bytes, besides the weights.
    pub(crate) fn working_bytes(&self, tokens: usize, prompts: usize) -> u64 {
        let T5Config { d_model, d_ff, num_heads, .. } = &self.config;
        let values = tokens * prompts * (9 * d_model + 3 * d_ff) + 2 * num_heads * tokens * tokens;
        4 * values as u64
    }

    /// Returns the size of the largest block in memory, in bytes.
    pub(crate) fn largest_block_bytes(&self) -> u64 {
        let block = |index| self.weights.bytes(&format!("encoder.block.{index}."));
        (0..self.config.num_layers).map(block).max().unwrap_or(0)
    }

    /// Encodes the token ids of several prompts of the same length, which include the end and padding tokens:
    /// `[tokens, width]` for each.
    ///
    /// Each block is read once for all prompts. `check_cancelled` is called before each block.
    pub(crate) fn forward(&self, prompts: &[&[u32]], check_cancelled: &dyn Fn() -> Result<()>) -> Result<Vec<Tensor>> {
        let root = self.weights.root();
        let (table, bias_table) = (token_table(&root), bias_table(&root, &self.config)?);
        let tokens = prompts.first().map_or(0, |ids| ids.len());
        if tokens == 0 || prompts.iter().any(|ids| ids.len() != tokens) {
            return Err(Error::Compute("the prompts for T5 have no tokens or different numbers of them".into()));
        }
        let bias = self.position_bias(&bias_table, tokens)?;
        let mut x = embed(&table, &prompts.concat(), self.config.d_model)?;
        self.blocks.try_for_each(|_, block| {
            check_cancelled()?;
            x = block.forward(&x, self.config.num_heads, &bias)?;
            Ok(())
        })?;
        let x = final_norm(&root, &self.config)?.forward(&x)?;
        (0..prompts.len()).map(|prompt| x.rows(prompt * tokens..(prompt + 1) * tokens)).collect()
    }

    /// Returns the attention bias of block 0, which every block uses: `[heads, tokens, tokens]`.
    fn position_bias(&self, table: &Tensor, tokens: usize) -> Result<Tensor> {
        let (buckets, heads) = (self.config.relative_attention_num_buckets, self.config.num_heads);
        let pairs = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key)));
        let max_distance = self.config.relative_attention_max_distance;
        let index: Vec<usize> = pairs.map(|(query, key)| bucket(query, key, buckets, max_distance) * heads).collect();
        let values =
            (0..heads).flat_map(|head| index.iter().map(move |bucket| table.values().get(bucket + head).copied()));
        let values = values.collect::<Option<_>>();
        let values = values.ok_or_else(|| Error::Compute(format!("a distance exceeds the {buckets} T5 buckets")))?;
        Tensor::new(values, &[heads, tokens, tokens])
    }
}

fn block(root: &Scope<'_>, config: &T5Config, index: usize) -> Result<Block> {
    Block::load(&root.at(format_args!("encoder.block.{index}")), config)
}

fn final_norm(root: &Scope<'_>, config: &T5Config) -> Result<RmsNorm> {
    RmsNorm::load(&root.at("encoder.final_layer_norm"), config.d_model, config.layer_norm_epsilon)
}

/// `[buckets, heads]`
fn bias_table(root: &Scope<'_>, config: &T5Config) -> Result<Tensor> {
    let scope = root.at("encoder.block.0.layer.0.SelfAttention.relative_attention_bias");
    scope.tensor("weight", &[config.relative_attention_num_buckets, config.num_heads])
}

/// Refuses the encoders of other models, which differ from T5 only in their vocabulary and their biases.
fn check_vocabulary(weights: &Weights) -> Result<()> {
    for name in ["shared.weight", "encoder.embed_tokens.weight"] {
        if let Some([rows, _]) = weights.shape(name)
            && *rows > MAX_VOCABULARY
        {
            let reason = format!(
                "has {rows} rows, but the T5 of SD 3.5 has {MAX_VOCABULARY}, so this is another encoder, such as UMT5; \
                 download T5-XXL v1.1"
            );
            return Err(weights.error(name, reason));
        }
    }
    Ok(())
}

/// A file may have the token embeddings under either name.
fn token_table<'a>(root: &Scope<'a>) -> Scope<'a> {
    if root.contains("shared.weight") { root.at("shared") } else { root.at("encoder.embed_tokens") }
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
