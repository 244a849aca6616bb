//! The dimensions of the parts, and the `config.json` files of a model folder that contain them.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// `transformer/config.json`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct DenoiserConfig {
    pub(crate) sample_size: usize,
    pub(crate) patch_size: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) num_layers: usize,
    pub(crate) attention_head_dim: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) joint_attention_dim: usize,
    pub(crate) pooled_projection_dim: usize,
    pub(crate) pos_embed_max_size: usize,
    /// The indices of the blocks that have a second self-attention over the image.
    #[serde(default)]
    pub(crate) dual_attention_layers: Vec<usize>,
    /// `"rms_norm"` in Stable Diffusion 3.5, absent in Stable Diffusion 3.
    #[serde(default)]
    pub(crate) qk_norm: Option<String>,
}

impl DenoiserConfig {
    pub(crate) fn width(&self) -> usize {
        self.attention_head_dim * self.num_attention_heads
    }
}

/// `vae/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VaeConfig {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) latent_channels: usize,
    pub(crate) block_out_channels: Vec<usize>,
    pub(crate) layers_per_block: usize,
    pub(crate) norm_num_groups: usize,
    pub(crate) scaling_factor: f64,
    #[serde(default)]
    pub(crate) shift_factor: f64,
    #[serde(default)]
    pub(crate) use_quant_conv: bool,
    #[serde(default)]
    pub(crate) use_post_quant_conv: bool,
}

/// Settings in `vae/config.json` that have one supported value.
#[derive(Deserialize)]
#[serde(default)]
struct VaeSettings {
    act_fn: String,
    mid_block_add_attention: bool,
    /// The mean of each channel of the latent, which replaces `shift_factor` in other models.
    latents_mean: Option<Vec<f64>>,
    latents_std: Option<Vec<f64>>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
}

impl Default for VaeSettings {
    fn default() -> Self {
        Self {
            act_fn: "silu".into(),
            mid_block_add_attention: true,
            latents_mean: None,
            latents_std: None,
            down_block_types: Vec::new(),
            up_block_types: Vec::new(),
        }
    }
}

impl VaeConfig {
    /// The ratio of the image's side to the latent's side.
    pub(crate) fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}

/// `text_encoder/config.json` and `text_encoder_2/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClipConfig {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) projection_dim: usize,
    pub(crate) hidden_act: String,
    #[serde(default = "clip_layer_norm_eps")]
    pub(crate) layer_norm_eps: f64,
    pub(crate) eos_token_id: u32,
}

fn clip_layer_norm_eps() -> f64 {
    1e-5
}

/// `text_encoder_3/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct T5Config {
    pub(crate) d_model: usize,
    pub(crate) d_kv: usize,
    pub(crate) d_ff: usize,
    pub(crate) num_layers: usize,
    pub(crate) num_heads: usize,
    pub(crate) relative_attention_num_buckets: usize,
    #[serde(default = "t5_max_distance")]
    pub(crate) relative_attention_max_distance: usize,
    #[serde(default = "t5_layer_norm_epsilon")]
    pub(crate) layer_norm_epsilon: f64,
    pub(crate) feed_forward_proj: String,
}

fn t5_max_distance() -> usize {
    128
}

fn t5_layer_norm_epsilon() -> f64 {
    1e-6
}

impl DenoiserConfig {
    /// Checks the values. `path` is the file that they come from.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let positive = [
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("num_layers", self.num_layers),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ];
        let another = |reason: String| Err(Error::malformed(path, reason));
        if self.out_channels != self.in_channels {
            return another(format!(
                "`out_channels` is {} and `in_channels` is {}, so this is not an SD 3.5 denoiser; download one",
                self.out_channels, self.in_channels
            ));
        }
        let largest = self.pos_embed_max_size.saturating_mul(self.patch_size);
        match self.qk_norm.as_deref() {
            Some("rms_norm") if self.num_layers >= 38 => another(
                "is Stable Diffusion 3.5 Large, which is not supported; download Stable Diffusion 3.5 Medium".into(),
            ),
            Some("rms_norm") => {
                check_dimensions(path, &positive)?;
                // A request without a size would have it.
                let Self { sample_size, patch_size, .. } = self;
                if *sample_size > largest || !sample_size.is_multiple_of(*patch_size) {
                    return another(format!(
                        "`sample_size` is {sample_size}, but must be a multiple of `patch_size` ({patch_size}) up to {largest}; \
                         download the file again"
                    ));
                }
                Ok(())
            }
            None => another(
                "is Stable Diffusion 3 Medium, which is not supported; download Stable Diffusion 3.5 Medium".into(),
            ),
            Some(other) => {
                another(format!("`qk_norm` is {other:?}; only \"rms_norm\" is supported: download an SD 3.5 denoiser"))
            }
        }
    }
}

impl VaeConfig {
    /// Checks the values. `path` is the file that they come from.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let widths = self.block_out_channels.iter().map(|width| ("block_out_channels", *width));
        let others = [
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
            ("layers_per_block", self.layers_per_block),
        ];
        check_dimensions(path, &widths.chain(others).collect::<Vec<_>>())?;
        let groups_fit = self.block_out_channels.iter().all(|width| width % self.norm_num_groups == 0);
        let levels_fit = (1..=8).contains(&self.block_out_channels.len());
        let scale_fits = self.scaling_factor.is_finite() && self.scaling_factor != 0.0 && self.shift_factor.is_finite();
        if !groups_fit || !levels_fit || !scale_fits || self.in_channels != 3 || self.out_channels != 3 {
            return Err(Error::malformed(
                path,
                "is not the configuration of an SD 3.5 autoencoder, which has 3 `in_channels` and `out_channels`, \
                 `block_out_channels` that are multiples of `norm_num_groups`, and a `scaling_factor` other than 0; \
                 download it again",
            ));
        }
        refuse_settings(
            path,
            &[("use_quant_conv", self.use_quant_conv), ("use_post_quant_conv", self.use_post_quant_conv)],
        )
    }
}

impl VaeSettings {
    fn check(&self, path: &Path) -> Result<()> {
        let has_other = |types: &[String], supported: &str| types.iter().any(|kind| kind != supported);
        refuse_settings(
            path,
            &[
                ("act_fn", self.act_fn != "silu"),
                ("mid_block_add_attention", !self.mid_block_add_attention),
                ("latents_mean", self.latents_mean.is_some()),
                ("latents_std", self.latents_std.is_some()),
                ("down_block_types", has_other(&self.down_block_types, "DownEncoderBlock2D")),
                ("up_block_types", has_other(&self.up_block_types, "UpDecoderBlock2D")),
            ],
        )
    }
}

/// Returns an error for the first setting of an autoencoder that has an unsupported value.
fn refuse_settings(path: &Path, settings: &[(&str, bool)]) -> Result<()> {
    match settings.iter().find(|(_, is_unsupported)| *is_unsupported) {
        Some((name, _)) => Err(Error::malformed(
            path,
            format!("`{name}` has a value that is not supported; download the autoencoder of SD 3.5"),
        )),
        None => Ok(()),
    }
}

impl ClipConfig {
    /// Checks the values. `path` is the file that they come from.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let positive = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("projection_dim", self.projection_dim),
        ];
        check_dimensions(path, &positive)?;
        let malformed = |reason: String| Err(Error::malformed(path, reason));
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return malformed(format!(
                "`hidden_size` is {}, which `num_attention_heads` ({}) does not divide; download the file again",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if self.max_position_embeddings < 3 || self.max_position_embeddings > 77 {
            return malformed(format!(
                "`max_position_embeddings` is {}, but the CLIP encoders of SD 3.5 have 77; download one of them",
                self.max_position_embeddings
            ));
        }
        match self.hidden_act.as_str() {
            "quick_gelu" | "gelu" => Ok(()),
            other => malformed(format!(
                "`hidden_act` is {other:?}; only \"quick_gelu\" and \"gelu\" are supported: download an SD 3.5 text encoder"
            )),
        }
    }
}

impl T5Config {
    /// Checks the values. `path` is the file that they come from.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let positive = [
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
        ];
        check_dimensions(path, &positive)?;
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if !(4..=1 << 16).contains(&buckets) || distance <= buckets / 4 || distance > 1 << 24 {
            return Err(Error::malformed(
                path,
                format!(
                    "`relative_attention_num_buckets` is {buckets} and `relative_attention_max_distance` is {distance}, \
                     but T5 has 32 and 128; download the file again"
                ),
            ));
        }
        if self.feed_forward_proj != "gated-gelu" {
            return Err(Error::malformed(
                path,
                format!(
                    "`feed_forward_proj` is {:?}; Stable Diffusion 3.5 uses T5 v1.1 with \"gated-gelu\": download that encoder",
                    self.feed_forward_proj
                ),
            ));
        }
        Ok(())
    }
}

/// Reads and checks the denoiser's configuration.
pub(crate) fn denoiser(files: &ModelFiles) -> Result<DenoiserConfig> {
    let name = "transformer/config.json";
    let config: DenoiserConfig = files.json(name)?;
    config.check(&files.path(name)).map(|()| config)
}

/// Reads and checks the image autoencoder's configuration.
pub(crate) fn vae(files: &ModelFiles) -> Result<VaeConfig> {
    let name = "vae/config.json";
    let config: VaeConfig = files.json(name)?;
    config.check(&files.path(name))?;
    files.json::<VaeSettings>(name)?.check(&files.path(name)).map(|()| config)
}

/// Reads and checks a CLIP text encoder's configuration.
pub(crate) fn clip(files: &ModelFiles, folder: &str) -> Result<ClipConfig> {
    let name = format!("{folder}/config.json");
    let config: ClipConfig = files.json(&name)?;
    config.check(&files.path(&name)).map(|()| config)
}

/// Reads and checks the T5 encoder's configuration.
pub(crate) fn t5(files: &ModelFiles) -> Result<T5Config> {
    let name = "text_encoder_3/config.json";
    let config: T5Config = files.json(name)?;
    config.check(&files.path(name)).map(|()| config)
}

/// Refuses dimensions that are 0, or so large that products of them overflow.
fn check_dimensions(path: &Path, dimensions: &[(&str, usize)]) -> Result<()> {
    match dimensions.iter().find(|(_, value)| !(1..=1 << 20).contains(value)) {
        Some((key, value)) => {
            Err(Error::malformed(path, format!("`{key}` is {value}, so the file is corrupt; download it again")))
        }
        None => Ok(()),
    }
}
