//! The CLIP text encoders.

use candle_core::Tensor;

use super::embedding::embed;
use crate::config::ClipConfig;
use crate::error::Result;
use crate::ops::{Activation, Linear, Mask, Ops};
use crate::weights::{Scope, Weights};

/// A CLIP text encoder and its projection.
#[derive(Debug)]
pub(crate) struct Clip {
    weights: Weights,
    config: ClipConfig,
    /// `[positions, width]`
    positions: Tensor,
    layers: Vec<Layer>,
    final_norm: Norm,
    projection: Option<Linear>,
    activation: Activation,
    ops: Ops,
}

/// The output of a CLIP encoder.
#[derive(Debug)]
pub(crate) struct ClipOutput {
    /// `[tokens, width]`: the output of the penultimate layer, without the final norm.
    pub(crate) features: Tensor,
    /// `[projection width]`: the projected output at the end token.
    pub(crate) pooled: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

#[derive(Debug)]
struct Layer {
    norm1: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm2: Norm,
    up: Linear,
    down: Linear,
}

impl Norm {
    fn load(scope: &Scope<'_>, config: &ClipConfig) -> Result<Self> {
        let width = config.hidden_size;
        Ok(Self {
            weight: scope.tensor("weight", &[width])?,
            bias: scope.tensor("bias", &[width])?,
            eps: config.layer_norm_eps,
        })
    }

    fn apply(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &ClipConfig) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let attention = scope.at("self_attn");
        Ok(Self {
            norm1: Norm::load(&scope.at("layer_norm1"), config)?,
            query: Linear::load(&attention.at("q_proj"), width, width)?,
            key: Linear::load(&attention.at("k_proj"), width, width)?,
            value: Linear::load(&attention.at("v_proj"), width, width)?,
            output: Linear::load(&attention.at("out_proj"), width, width)?,
            norm2: Norm::load(&scope.at("layer_norm2"), config)?,
            up: Linear::load(&scope.at("mlp.fc1"), width, inner)?,
            down: Linear::load(&scope.at("mlp.fc2"), inner, width)?,
        })
    }

    fn forward(&self, ops: Ops, x: &Tensor, heads: usize, activation: Activation) -> Result<Tensor> {
        let width = x.dim(1)?;
        let normed = self.norm1.apply(ops, x)?;
        let (q, k, v) =
            (ops.linear(&normed, &self.query)?, ops.linear(&normed, &self.key)?, ops.linear(&normed, &self.value)?);
        let scale = 1.0 / ((width / heads) as f32).sqrt();
        let attended = ops.attention(&q, &k, &v, heads, scale, Mask::Causal)?;
        let x = ops.add(x, &ops.linear(&attended, &self.output)?)?;
        let hidden = ops.linear_activation(&self.norm2.apply(ops, &x)?, &self.up, activation)?;
        Ok(ops.add(&x, &ops.linear(&hidden, &self.down)?)?)
    }
}

impl Clip {
    pub(crate) fn load(weights: Weights, config: ClipConfig, ops: Ops) -> Result<Self> {
        let root = weights.root();
        let model = text_model(&root);
        let activation = match config.hidden_act.as_str() {
            "quick_gelu" => Activation::QuickGelu,
            _ => Activation::GeluErf,
        };
        let positions = model
            .at("embeddings.position_embedding")
            .tensor("weight", &[config.max_position_embeddings, config.hidden_size])?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::load(&model.at(format_args!("encoder.layers.{i}")), &config))
            .collect::<Result<_>>()?;
        let final_norm = Norm::load(&model.at("final_layer_norm"), &config)?;
        // Some CLIP-L files have no projection, which is then the identity.
        let projection = match root.contains("text_projection.weight") {
            true => {
                Some(Linear::load_without_bias(&root.at("text_projection"), config.hidden_size, config.projection_dim)?)
            }
            false => None,
        };
        Ok(Self { config, positions, layers, final_norm, projection, activation, ops, weights })
    }

    /// Encodes token ids, which include the start, end and padding tokens.
    pub(crate) fn forward(&self, ids: &[u32]) -> Result<ClipOutput> {
        let root = self.weights.root();
        let table = text_model(&root).at("embeddings.token_embedding");
        let tokens = embed(&table, ids, self.config.hidden_size)?;
        let mut x = self.ops.add(&tokens, &self.positions.narrow(0, 0, ids.len())?)?;
        let mut features = x.clone();
        for layer in &self.layers {
            features = x;
            x = layer.forward(self.ops, &features, self.config.num_attention_heads, self.activation)?;
        }
        let end = self.final_norm.apply(self.ops, &x.narrow(0, end_position(ids, self.config.eos_token_id), 1)?)?;
        let pooled = match &self.projection {
            Some(projection) => self.ops.linear(&end, projection)?,
            None => end,
        };
        Ok(ClipOutput { features, pooled: pooled.squeeze(0)? })
    }
}

/// Newer versions of transformers save tensor names without the prefix `text_model`.
fn text_model<'a>(root: &Scope<'a>) -> Scope<'a> {
    if root.contains("text_model.final_layer_norm.weight") { root.at("text_model") } else { root.clone() }
}

/// Returns the index of the end token. In old configurations, `eos_token_id` is 2, and the end token is the one with the
/// largest id.
fn end_position(ids: &[u32], eos: u32) -> usize {
    let end = if eos == 2 { ids.iter().copied().max().unwrap_or(eos) } else { eos };
    ids.iter().position(|id| *id == end).unwrap_or(0)
}
