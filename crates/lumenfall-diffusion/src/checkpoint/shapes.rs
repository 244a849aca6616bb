//! The dimensions of parts whose files have no configuration, from the shapes of their tensors.

use super::config::{ClipConfig, DenoiserConfig, T5Config, VaeConfig};
use super::counts::count;
use crate::error::{Error, Result};
use crate::weights::Weights;
use crate::weights::layout::PartKind;

/// The dimensions that no tensor's shape shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conventions {
    /// The number of attention heads of a CLIP encoder with a width.
    pub(crate) clip_heads: fn(usize) -> usize,
    /// The number of groups of the VAE's norms.
    pub(crate) vae_groups: usize,
    /// The side of the default image's latent.
    pub(crate) sample_size: usize,
    /// The side of the table of position embeddings, if the file does not contain it.
    pub(crate) position_side: usize,
}

impl Conventions {
    pub(crate) const STABLE_DIFFUSION_3: Self =
        Self { clip_heads: |width| width / 64, vae_groups: 32, sample_size: 128, position_side: 384 };
}

/// Returns a tensor's dimensions.
fn dims<const N: usize>(weights: &Weights, name: &str) -> Result<[usize; N]> {
    let shape = weights.shape(name);
    let error = |reason: String| Error::Tensor { path: weights.path().to_path_buf(), tensor: name.into(), reason };
    let shape = shape.ok_or_else(|| error("is missing, so the file is incomplete; download it again".into()))?;
    let dims: Vec<usize> = match shape.len() > N {
        true => shape.iter().copied().filter(|dim| *dim != 1).collect(),
        false => shape.to_vec(),
    };
    dims.try_into().map_err(|_| {
        error(format!("has the shape {shape:?}, but {N} dimensions are required; download the file again"))
    })
}

pub(super) fn denoiser(weights: &Weights, conventions: &Conventions) -> Result<DenoiserConfig> {
    let [width, channels, patch, _] = dims(weights, "pos_embed.proj.weight")?;
    let positions = "pos_embed.pos_embed";
    let position_side = match weights.shape(positions) {
        Some(_) => dims::<2>(weights, positions)?[0].isqrt(),
        None => conventions.position_side,
    };
    let [_, pooled] = dims(weights, "time_text_embed.text_embedder.linear_1.weight")?;
    let [_, joint] = dims(weights, "context_embedder.weight")?;
    let block = |index: usize, layer: &str| format!("transformer_blocks.{index}.{layer}.weight");
    let layers = count(weights, |index| block(index, "attn.to_q"));
    let norm = weights.shape(&block(0, "attn.norm_q")).is_some();
    let head = if norm { dims::<1>(weights, &block(0, "attn.norm_q"))?[0] } else { 64 };
    let config = DenoiserConfig {
        sample_size: conventions.sample_size,
        patch_size: patch,
        in_channels: channels,
        out_channels: channels,
        num_layers: layers,
        attention_head_dim: head,
        num_attention_heads: width.checked_div(head).unwrap_or(0),
        joint_attention_dim: joint,
        pooled_projection_dim: pooled,
        pos_embed_max_size: position_side,
        dual_attention_layers: (0..layers)
            .filter(|index| weights.shape(&block(*index, "attn2.to_q")).is_some())
            .collect(),
        qk_norm: norm.then(|| "rms_norm".into()),
    };
    config.check(weights.path())?;
    Ok(config)
}

pub(super) fn vae(weights: &Weights, conventions: &Conventions) -> Result<VaeConfig> {
    let [_, latent, _, _] = dims(weights, "decoder.conv_in.weight")?;
    let levels = count(weights, |index| format!("encoder.down_blocks.{index}.resnets.0.conv1.weight"));
    let width = |index| {
        dims(weights, &format!("encoder.down_blocks.{index}.resnets.0.conv1.weight")).map(|[width, _, _, _]| width)
    };
    let config = VaeConfig {
        in_channels: dims::<4>(weights, "encoder.conv_in.weight")?[1],
        out_channels: dims::<4>(weights, "decoder.conv_out.weight")?[0],
        latent_channels: latent,
        block_out_channels: (0..levels).map(width).collect::<Result<_>>()?,
        layers_per_block: count(weights, |index| format!("encoder.down_blocks.0.resnets.{index}.conv1.weight")),
        norm_num_groups: conventions.vae_groups,
        // "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", the values of all SD 3 models.
        scaling_factor: 1.5305,
        shift_factor: 0.0609,
        use_quant_conv: weights.shape("quant_conv.weight").is_some(),
        use_post_quant_conv: weights.shape("post_quant_conv.weight").is_some(),
    };
    config.check(weights.path())?;
    Ok(config)
}

pub(super) fn clip(weights: &Weights, kind: PartKind, conventions: &Conventions) -> Result<ClipConfig> {
    let prefix = if weights.shape("text_model.final_layer_norm.weight").is_some() { "text_model." } else { "" };
    let [positions, width] = dims(weights, &format!("{prefix}embeddings.position_embedding.weight"))?;
    let [inner, _] = dims(weights, &format!("{prefix}encoder.layers.0.mlp.fc1.weight"))?;
    let projection = weights.shape("text_projection.weight").and_then(|shape| shape.first().copied());
    let config = ClipConfig {
        hidden_size: width,
        intermediate_size: inner,
        num_hidden_layers: count(weights, |index| format!("{prefix}encoder.layers.{index}.mlp.fc1.weight")),
        num_attention_heads: (conventions.clip_heads)(width),
        max_position_embeddings: positions,
        projection_dim: projection.unwrap_or(width),
        hidden_act: if kind == PartKind::ClipG { "gelu" } else { "quick_gelu" }.into(),
        layer_norm_eps: 1e-5,
        // The end token has the largest id.
        eos_token_id: 2,
    };
    config.check(weights.path())?;
    Ok(config)
}

pub(super) fn t5(weights: &Weights) -> Result<T5Config> {
    let attention = "encoder.block.0.layer.0.SelfAttention";
    let [buckets, heads] = dims(weights, &format!("{attention}.relative_attention_bias.weight"))?;
    let [inner, width] = dims(weights, &format!("{attention}.q.weight"))?;
    let [feed_forward, _] = dims(weights, "encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?;
    let config = T5Config {
        d_model: width,
        d_kv: inner.checked_div(heads).unwrap_or(0),
        d_ff: feed_forward,
        num_layers: count(weights, |index| format!("encoder.block.{index}.layer.0.SelfAttention.q.weight")),
        num_heads: heads,
        relative_attention_num_buckets: buckets,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: "gated-gelu".into(),
    };
    config.check(weights.path())?;
    Ok(config)
}
