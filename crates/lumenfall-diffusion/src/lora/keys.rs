//! The names of tensors in LoRA files.

use crate::weights::layout::PartKind;

/// The meaning of a tensor for its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The first matrix of a low-rank difference, `[rank, in]`.
    Down,
    /// The second matrix of a low-rank difference, `[out, rank]`.
    Up,
    /// The bias of the second matrix, `[out]`.
    UpBias,
    /// The number that determines the scale.
    Alpha,
    /// DoRA's norms of the adapted weight's rows or columns.
    Magnitude,
    /// A difference of the layer's bias, `[out]`.
    Bias,
    /// The first factor of a Kronecker product, or two matrices whose product it is.
    Kron1,
    Kron1A,
    Kron1B,
    /// The second factor of a Kronecker product, or two matrices whose product it is.
    Kron2,
    Kron2A,
    Kron2B,
}

impl Role {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::UpBias => "up_bias",
            Self::Alpha => "alpha",
            Self::Magnitude => "magnitude",
            Self::Bias => "bias",
            Self::Kron1 => "kron1",
            Self::Kron1A => "kron1_a",
            Self::Kron1B => "kron1_b",
            Self::Kron2 => "kron2",
            Self::Kron2A => "kron2_a",
            Self::Kron2B => "kron2_b",
        }
    }

    /// Returns whether the tensor has a row for each output of the layer.
    pub(super) const fn has_output_rows(self) -> bool {
        matches!(self, Self::Up | Self::UpBias | Self::Bias)
    }
}

/// The ends of keys, without the adapter name that peft may insert before the last part.
const ENDS: [(&str, Role); 21] = [
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_B.bias", Role::UpBias),
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".lora_up.bias", Role::UpBias),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".dora_scale", Role::Magnitude),
    (".lora_magnitude_vector", Role::Magnitude),
    (".lora_magnitude_vector.weight", Role::Magnitude),
    (".diff_b", Role::Bias),
    (".lokr_w1", Role::Kron1),
    (".lokr_w1_a", Role::Kron1A),
    (".lokr_w1_b", Role::Kron1B),
    (".lokr_w2", Role::Kron2),
    (".lokr_w2_a", Role::Kron2A),
    (".lokr_w2_b", Role::Kron2B),
];

/// The parts of keys whose kind of adapter is not supported.
const UNSUPPORTED: [(&str, &str); 14] = [
    (".hada_", "LoHa"),
    (".lokr_t", "LoKr with Tucker decomposition"),
    (".lora_mid.", "LoCon with Tucker decomposition"),
    (".lora_embedding_", "LoRA of embeddings"),
    (".oft_", "OFT"),
    (".boft_", "BOFT"),
    (".a1.weight", "GLoRA"),
    (".a2.weight", "GLoRA"),
    (".diff", "a full difference of weights"),
    (".w_norm", "a norm's weight"),
    (".b_norm", "a norm's bias"),
    (".set_weight", "a replaced weight"),
    (".reshape_weight", "a reshaped weight"),
    (".lora_ga", "LoRA-GA"),
];

/// A key of a LoRA file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// A tensor for a layer, whose name has the form of the file.
    Tensor {
        module: &'a str,
        role: Role,
    },
    /// A tensor of an adapter that is not supported.
    Unsupported(&'static str),
    Unknown,
}

impl<'a> Key<'a> {
    pub(super) fn parse(key: &'a str) -> Self {
        let find = |key: &str| ENDS.iter().find_map(|(end, role)| Some((key.strip_suffix(end)?.len(), *role)));
        let found = find(key).or_else(|| {
            // `layer.lora_A.default.weight` or `layer.lora_magnitude_vector.default`
            let (rest, last) = key.rsplit_once('.')?;
            let without_adapter = || Some(format!("{}.{last}", rest.rsplit_once('.')?.0));
            find(rest).filter(|(_, role)| *role == Role::Magnitude).or_else(|| find(&without_adapter()?))
        });
        if let Some((module, role)) = found.and_then(|(length, role)| Some((key.get(..length)?, role))) {
            return Self::Tensor { module, role };
        }
        let kind = UNSUPPORTED.iter().find(|(part, _)| key.contains(part));
        kind.map_or(Self::Unknown, |(_, kind)| Self::Unsupported(kind))
    }
}

/// The beginnings of module names, with the part that they belong to. The longer ones are first.
const PREFIXES: [(&str, PartKind); 18] = [
    ("model.diffusion_model.", PartKind::Denoiser),
    ("diffusion_model.", PartKind::Denoiser),
    ("transformer.", PartKind::Denoiser),
    ("lora_unet_", PartKind::Denoiser),
    ("lora_transformer_", PartKind::Denoiser),
    ("lycoris_", PartKind::Denoiser),
    ("text_encoders.clip_l.transformer.", PartKind::ClipL),
    ("text_encoders.clip_g.transformer.", PartKind::ClipG),
    ("text_encoders.t5xxl.transformer.", PartKind::T5),
    ("text_encoder.", PartKind::ClipL),
    ("text_encoder_2.", PartKind::ClipG),
    ("text_encoder_3.", PartKind::T5),
    ("lora_te1_", PartKind::ClipL),
    ("lora_te2_", PartKind::ClipG),
    ("lora_te3_", PartKind::T5),
    ("clip_l.", PartKind::ClipL),
    ("clip_g.", PartKind::ClipG),
    ("t5xxl.", PartKind::T5),
];

/// Returns the part of a module and the rest of its name. A module without a prefix belongs to the denoiser.
pub(super) fn part(module: &str) -> (PartKind, &str) {
    let module = module.strip_prefix("base_model.model.").unwrap_or(module);
    let found = PREFIXES.iter().find_map(|(prefix, part)| Some((*part, module.strip_prefix(prefix)?)));
    found.unwrap_or((PartKind::Denoiser, module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_a_module_and_a_role() {
        for (key, module, role) in [
            ("transformer.a.to_q.lora_A.weight", "transformer.a.to_q", Role::Down),
            ("a.to_q.lora_B.default.weight", "a.to_q", Role::Up),
            ("a.to_q.lora_B.default_0.bias", "a.to_q", Role::UpBias),
            ("lora_unet_a.lora_up.weight", "lora_unet_a", Role::Up),
            ("a.to_out.0.alpha", "a.to_out.0", Role::Alpha),
            ("a.lora_magnitude_vector.default", "a", Role::Magnitude),
            ("a.lora_magnitude_vector.default.weight", "a", Role::Magnitude),
            ("a.lora_magnitude_vector", "a", Role::Magnitude),
            ("a.lokr_w2_a", "a", Role::Kron2A),
            ("a.diff_b", "a", Role::Bias),
        ] {
            assert_eq!(Key::parse(key), Key::Tensor { module, role }, "{key}");
        }
        assert_eq!(Key::parse("a.hada_w1_a"), Key::Unsupported("LoHa"));
        for (key, kind) in [
            ("a.diff", "a full difference of weights"),
            ("a.w_norm", "a norm's weight"),
            ("a.b_norm", "a norm's bias"),
            ("a.set_weight", "a replaced weight"),
        ] {
            assert_eq!(Key::parse(key), Key::Unsupported(kind));
        }
        assert_eq!(Key::parse("a.lora_A"), Key::Unknown);
        assert_eq!(Key::parse("weight"), Key::Unknown);
    }

    #[test]
    fn the_part_depends_on_the_prefix() {
        for (module, kind, rest) in [
            ("base_model.model.transformer_blocks.0.attn.to_q", PartKind::Denoiser, "transformer_blocks.0.attn.to_q"),
            ("base_model.model.transformer.proj_out", PartKind::Denoiser, "proj_out"),
            ("lora_transformer_transformer_blocks_0_attn_to_q", PartKind::Denoiser, "transformer_blocks_0_attn_to_q"),
            ("diffusion_model.joint_blocks.0.x_block.attn.qkv", PartKind::Denoiser, "joint_blocks.0.x_block.attn.qkv"),
            ("text_encoder_2.text_model.a", PartKind::ClipG, "text_model.a"),
            ("lora_te3_encoder_block_0", PartKind::T5, "encoder_block_0"),
        ] {
            assert_eq!(part(module), (kind, rest));
        }
    }
}
