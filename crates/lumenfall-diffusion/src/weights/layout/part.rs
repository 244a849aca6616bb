//! Finds the parts of a model in a file by the names of its tensors.

use super::Naming;
use crate::weights::container::Container;

/// A part of Stable Diffusion 3.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PartKind {
    /// The denoiser, MMDiT-X.
    Denoiser,
    /// The image autoencoder.
    Vae,
    /// The smaller CLIP text encoder.
    ClipL,
    /// The larger CLIP text encoder.
    ClipG,
    /// The T5-XXL text encoder.
    T5,
}

impl PartKind {
    pub(crate) const ALL: [Self; 5] = [Self::Denoiser, Self::Vae, Self::ClipL, Self::ClipG, Self::T5];

    /// Returns the usual name of the part.
    pub fn name(self) -> &'static str {
        match self {
            Self::Denoiser => "denoiser",
            Self::Vae => "VAE",
            Self::ClipL => "CLIP-L",
            Self::ClipG => "CLIP-G",
            Self::T5 => "T5",
        }
    }
}

/// The place of a part in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) kind: PartKind,
    pub(crate) naming: Naming,
    /// The beginning of the names of the part's tensors.
    pub(crate) prefix: String,
}

impl Location {
    /// Returns the place of a part that has a file of its own in a folder of the diffusers library. Its kind does not matter.
    pub(crate) fn diffusers() -> Self {
        Self { kind: PartKind::Denoiser, naming: Naming::Diffusers, prefix: String::new() }
    }
}

/// A tensor name that only one part has, under one naming scheme. A CLIP encoder is told apart by its width.
const SIGNS: [(&str, PartKind, Naming); 8] = [
    ("joint_blocks.0.x_block.attn.qkv.weight", PartKind::Denoiser, Naming::Original),
    ("transformer_blocks.0.attn.add_q_proj.weight", PartKind::Denoiser, Naming::Diffusers),
    ("decoder.mid.block_1.conv1.weight", PartKind::Vae, Naming::Original),
    ("decoder.mid_block.resnets.0.conv1.weight", PartKind::Vae, Naming::Diffusers),
    ("text_model.encoder.layers.0.layer_norm1.weight", PartKind::ClipL, Naming::Diffusers),
    ("encoder.layers.0.layer_norm1.weight", PartKind::ClipL, Naming::Diffusers),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", PartKind::T5, Naming::Diffusers),
    ("enc.blk.0.attn_q.weight", PartKind::T5, Naming::LlamaCpp),
];

/// CLIP-G has 1280 channels, CLIP-L has 768.
const CLIP_G_WIDTH: usize = 1024;

/// Returns the parts in a file. Whether an encoder is CLIP-L or CLIP-G depends on its width, unless its name says so.
pub(crate) fn find_parts(container: &Container) -> Vec<Location> {
    let mut parts = Vec::new();
    for (name, info) in &container.tensors {
        let sign = SIGNS.iter().find_map(|(sign, kind, naming)| Some((name.strip_suffix(sign)?, *kind, *naming)));
        // The prefix is empty or ends with a dot.
        let Some((prefix, kind, naming)) = sign.filter(|(prefix, ..)| prefix.is_empty() || prefix.ends_with('.'))
        else {
            continue;
        };
        let width = info.shape.last().copied().unwrap_or(0);
        let place = match prefix {
            "" => container.shard.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase(),
            prefix => prefix.to_lowercase(),
        };
        let kind = match kind {
            PartKind::ClipL if place.contains("clip_g") || (width >= CLIP_G_WIDTH && !place.contains("clip_l")) => {
                PartKind::ClipG
            }
            kind => kind,
        };
        parts.push(Location { kind, naming, prefix: prefix.to_owned() });
    }
    parts
}

/// Returns what a file is that contains no part of Stable Diffusion 3.5.
pub(crate) fn describe_other_model(container: &Container) -> &'static str {
    let has = |part: &str| container.tensors.keys().any(|name| name.contains(part));
    if has("lora_") || has("lokr_") || has("hada_") {
        "is a LoRA, which changes a model and is not one; open the model itself"
    } else if has("double_blocks.0.") || has("single_transformer_blocks.0.") {
        "is a FLUX model, which is not supported; download Stable Diffusion 3.5 Medium"
    } else if has("input_blocks.0.") || has("down_blocks.0.attentions") {
        "is a Stable Diffusion 1, 2 or XL model, which is not supported; download Stable Diffusion 3.5 Medium"
    } else {
        "contains no part of Stable Diffusion 3.5; download its denoiser, VAE or a text encoder"
    }
}
