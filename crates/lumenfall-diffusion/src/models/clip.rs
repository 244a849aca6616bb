//! The CLIP text encoders.

use std::sync::Arc;

use crate::checkpoint::Part;
use crate::checkpoint::config::ClipConfig;
use crate::error::{Error, Result};
use crate::layers::{Activation, LayerNorm, Linear, Mask, add, attention_of_each, embed};
use crate::placement::Blocks;
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

/// A CLIP text encoder and its projection.
#[derive(Debug)]
pub(crate) struct Clip {
    weights: Arc<Weights>,
    config: ClipConfig,
    layers: Blocks<Layer>,
}

/// The output of a CLIP encoder.
#[derive(Clone, Debug)]
pub(crate) struct ClipOutput {
    /// `[tokens, width]`: the output of the penultimate layer, without the final norm.
    pub(crate) features: Tensor,
    /// `[1, projection width]`: the projected output at the end token.
    pub(crate) pooled: Tensor,
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

/// The layers before the first and after the last transformer layer.
struct Ends {
    /// `[positions, width]`
    positions: Tensor,
    final_norm: LayerNorm,
    projection: Option<Linear>,
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &ClipConfig) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = scope.at("self_attn");
        Ok(Self {
            norm1: LayerNorm::load(&scope.at("layer_norm1"), width, eps)?,
            query: Linear::load(&attention.at("q_proj"), width, width)?,
            key: Linear::load(&attention.at("k_proj"), width, width)?,
            value: Linear::load(&attention.at("v_proj"), width, width)?,
            output: Linear::load(&attention.at("out_proj"), width, width)?,
            norm2: LayerNorm::load(&scope.at("layer_norm2"), width, eps)?,
            up: Linear::load(&scope.at("mlp.fc1"), width, inner)?,
            down: Linear::load(&scope.at("mlp.fc2"), inner, width)?,
        })
    }

    /// Computes the layer for prompts of `tokens` tokens one after another, so that each weight is read once for all.
    fn forward(&self, x: &Tensor, tokens: usize, heads: usize, activation: Activation) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let (q, k, v) = (self.query.forward(&normed)?, self.key.forward(&normed)?, self.value.forward(&normed)?);
        let scale = 1.0 / ((x.width() / heads) as f32).sqrt();
        let attended = attention_of_each([&q, &k, &v], tokens, heads, scale, Mask::Causal)?;
        let x = add(self.output.forward(&attended)?, x)?;
        let hidden = self.up.forward_activated(&self.norm2.forward(&x)?, activation)?;
        add(self.down.forward(&hidden)?, &x)
    }
}

impl Ends {
    fn load(root: &Scope<'_>, config: &ClipConfig) -> Result<Self> {
        let (width, model) = (config.hidden_size, text_model(root));
        let positions = model.at("embeddings.position_embedding");
        // Some CLIP-L files have no projection, which is then the identity.
        let projection = match root.contains("text_projection.weight") {
            true => Some(Linear::load_without_bias(&root.at("text_projection"), width, config.projection_dim)?),
            false => Linear::adapted_identity(&root.at("text_projection"), width)?,
        };
        Ok(Self {
            positions: positions.tensor("weight", &[config.max_position_embeddings, width])?,
            final_norm: LayerNorm::load(&model.at("final_layer_norm"), width, config.layer_norm_eps)?,
            projection,
        })
    }
}

impl Clip {
    /// Checks the weights without reading them.
    pub(crate) fn open(Part { weights, config }: Part<ClipConfig>) -> Result<Self> {
        weights.check(|headers| {
            Ends::load(headers, &config)?;
            text_model(headers).at("embeddings.token_embedding").rows("weight", config.hidden_size, 0, 1)?;
            (0..config.num_hidden_layers).try_for_each(|i| layer(headers, &config, i).map(|_| ()))
        })?;
        let weights = Arc::new(weights);
        let layers = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Blocks::new(config.num_hidden_layers, move |i, kept| layer(&weights.root().streamed(!kept), &config, i))
        };
        Ok(Self { weights, config, layers })
    }

    /// Returns the maximum number of tokens.
    pub(crate) fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Returns the memory for a number of sequences of tokens, in bytes, besides the weights.
    pub(crate) fn working_bytes(&self, sequences: usize) -> u64 {
        let ClipConfig { max_position_embeddings: tokens, hidden_size, intermediate_size, .. } = &self.config;
        let values = sequences * tokens * (10 * hidden_size + 2 * intermediate_size);
        4 * values as u64
    }

    /// Returns the size of a layer in memory, in bytes.
    pub(crate) fn largest_layer_bytes(&self) -> u64 {
        let layer = |prefix: &str| self.weights.bytes(&format!("{prefix}encoder.layers.0."));
        layer("text_model.").max(layer(""))
    }

    /// Encodes the token ids of several prompts of the same length, which include the start, end and padding tokens.
    ///
    /// Each layer is read once for all prompts. `check_cancelled` is called before each layer.
    pub(crate) fn forward(
        &self,
        prompts: &[&[u32]],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<ClipOutput>> {
        let root = self.weights.root().streamed(true);
        let Ends { positions, final_norm, projection } = Ends::load(&root, &self.config)?;
        let table = text_model(&root).at("embeddings.token_embedding");
        let tokens = prompts.first().map_or(0, |ids| ids.len());
        if tokens == 0 || prompts.iter().any(|ids| ids.len() != tokens) {
            return Err(Error::Compute("the prompts for CLIP have no tokens or different numbers of them".into()));
        }
        let positions = positions.rows(0..tokens)?;
        let embedded = prompts.iter().map(|ids| add(embed(&table, ids, self.config.hidden_size)?, &positions));
        let embedded = embedded.collect::<Result<Vec<_>>>()?;
        let mut x = Tensor::concat(&embedded.iter().collect::<Vec<_>>())?;
        let mut features = x.clone();
        let (heads, activation) = (self.config.num_attention_heads, self.activation());
        self.layers.try_for_each(|_, layer| {
            check_cancelled()?;
            let y = layer.forward(&x, tokens, heads, activation)?;
            features = std::mem::replace(&mut x, y);
            Ok(())
        })?;
        let outputs = prompts.iter().enumerate().map(|(prompt, ids)| {
            let (first, end) = (prompt * tokens, end_position(ids, self.config.eos_token_id));
            let end = final_norm.forward(&x.rows(first + end..first + end + 1)?)?;
            let pooled = projection.as_ref().map_or(Ok(end.clone()), |projection| projection.forward(&end))?;
            Ok(ClipOutput { features: features.rows(first..first + tokens)?, pooled })
        });
        outputs.collect()
    }

    fn activation(&self) -> Activation {
        match self.config.hidden_act.as_str() {
            "quick_gelu" => Activation::QuickGelu,
            _ => Activation::GeluErf,
        }
    }
}

fn layer(root: &Scope<'_>, config: &ClipConfig, index: usize) -> Result<Layer> {
    Layer::load(&text_model(root).at(format_args!("encoder.layers.{index}")), config)
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
