//! The `config.json` files of Stable Diffusion 3.5 Medium.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::checkpoint::config::{ClipConfig, DenoiserConfig, T5Config, VaeConfig};
use crate::error::{Error, Result};

/// The configurations of all parts, with the entries that diffusers and transformers need.
#[derive(Clone, Debug)]
pub(super) struct Configurations {
    pub(super) transformer: Value,
    pub(super) vae: Value,
    pub(super) text_encoder: Value,
    pub(super) text_encoder_2: Value,
    pub(super) text_encoder_3: Value,
}

impl Configurations {
    /// Returns the configurations of Stable Diffusion 3.5 Medium.
    pub(super) fn full() -> Self {
        let clip = |width: u32, inner: u32, layers: u32, heads: u32, activation: &str| {
            json!({
                "architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model", "vocab_size": 49408,
                "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                "num_attention_heads": heads, "hidden_act": activation, "projection_dim": width,
                "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
            })
        };
        Self {
            transformer: json!({
                "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16,
                "out_channels": 16, "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24,
                "joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048,
                "pos_embed_max_size": 384, "dual_attention_layers": Vec::from_iter(0..13), "qk_norm": "rms_norm",
            }),
            vae: json!({
                "_class_name": "AutoencoderKL", "in_channels": 3, "out_channels": 3, "latent_channels": 16,
                "down_block_types": vec!["DownEncoderBlock2D"; 4], "up_block_types": vec!["UpDecoderBlock2D"; 4],
                "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32,
                "sample_size": 1024, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": false,
                "use_post_quant_conv": false,
            }),
            text_encoder: clip(768, 3072, 12, 12, "quick_gelu"),
            text_encoder_2: clip(1280, 5120, 32, 20, "gelu"),
            text_encoder_3: json!({
                "architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": 32128, "d_model": 4096, "d_kv": 64,
                "d_ff": 10240, "num_layers": 24, "num_heads": 64, "relative_attention_num_buckets": 32,
                "relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu",
            }),
        }
    }

    pub(super) fn denoiser(&self) -> Result<DenoiserConfig> {
        parse("transformer/config.json", &self.transformer)
    }

    pub(super) fn vae(&self) -> Result<VaeConfig> {
        parse("vae/config.json", &self.vae)
    }

    pub(super) fn clip_l(&self) -> Result<ClipConfig> {
        parse("text_encoder/config.json", &self.text_encoder)
    }

    pub(super) fn clip_g(&self) -> Result<ClipConfig> {
        parse("text_encoder_2/config.json", &self.text_encoder_2)
    }

    pub(super) fn t5(&self) -> Result<T5Config> {
        parse("text_encoder_3/config.json", &self.text_encoder_3)
    }
}

fn parse<T: DeserializeOwned>(name: &str, configuration: &Value) -> Result<T> {
    T::deserialize(configuration).map_err(|error| Error::malformed(Path::new(name), format!("is not valid: {error}")))
}
