//! The `config.json` files of a model folder, which determine every dimension.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// `transformer/config.json`.
#[derive(Clone, Debug, Deserialize)]
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

/// `scheduler/scheduler_config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SchedulerConfig {
    pub(crate) shift: f64,
    #[serde(default = "train_timesteps")]
    pub(crate) num_train_timesteps: usize,
    #[serde(default)]
    pub(crate) use_dynamic_shifting: bool,
}

fn train_timesteps() -> usize {
    1000
}

/// Reads and checks the denoiser's configuration.
pub(crate) fn denoiser(files: &ModelFiles) -> Result<DenoiserConfig> {
    let name = "transformer/config.json";
    let config: DenoiserConfig = files.json(name)?;
    let positive = [
        ("sample_size", config.sample_size),
        ("patch_size", config.patch_size),
        ("in_channels", config.in_channels),
        ("num_layers", config.num_layers),
        ("attention_head_dim", config.attention_head_dim),
        ("num_attention_heads", config.num_attention_heads),
        ("pos_embed_max_size", config.pos_embed_max_size),
    ];
    check_positive(files, name, &positive)?;
    if config.out_channels != config.in_channels {
        return Err(Error::malformed(
            files.path(name),
            "`out_channels` differs from `in_channels`, so this is not an SD 3.5 denoiser; download one",
        ));
    }
    match config.qk_norm.as_deref() {
        None | Some("rms_norm") => Ok(config),
        Some(other) => Err(Error::malformed(
            files.path(name),
            format!("`qk_norm` is {other:?}; only \"rms_norm\" is supported: download an SD 3.5 denoiser"),
        )),
    }
}

/// Reads and checks the image autoencoder's configuration.
pub(crate) fn vae(files: &ModelFiles) -> Result<VaeConfig> {
    let name = "vae/config.json";
    let config: VaeConfig = files.json(name)?;
    let widths = config.block_out_channels.iter().map(|width| ("block_out_channels", *width));
    let positive: Vec<_> = widths
        .chain([("latent_channels", config.latent_channels), ("norm_num_groups", config.norm_num_groups)])
        .collect();
    check_positive(files, name, &positive)?;
    let groups_fit = config.block_out_channels.iter().all(|width| width % config.norm_num_groups == 0);
    if !groups_fit
        || config.scaling_factor == 0.0
        || config.block_out_channels.is_empty()
        || config.in_channels != 3
        || config.out_channels != 3
    {
        return Err(Error::malformed(
            files.path(name),
            "is not the configuration of an SD 3.5 autoencoder, which has 3 `in_channels` and `out_channels`, \
             `block_out_channels` that are multiples of `norm_num_groups`, and a `scaling_factor` other than 0; \
             download it again",
        ));
    }
    Ok(config)
}

/// Reads and checks a CLIP text encoder's configuration.
pub(crate) fn clip(files: &ModelFiles, folder: &str) -> Result<ClipConfig> {
    let name = format!("{folder}/config.json");
    let config: ClipConfig = files.json(&name)?;
    let positive = [
        ("hidden_size", config.hidden_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("max_position_embeddings", config.max_position_embeddings),
    ];
    check_positive(files, &name, &positive)?;
    match config.hidden_act.as_str() {
        "quick_gelu" | "gelu" => Ok(config),
        other => Err(Error::malformed(
            files.path(&name),
            format!(
                "`hidden_act` is {other:?}; only \"quick_gelu\" and \"gelu\" are supported: download an SD 3.5 text encoder"
            ),
        )),
    }
}

/// Reads and checks the T5 encoder's configuration.
pub(crate) fn t5(files: &ModelFiles) -> Result<T5Config> {
    let name = "text_encoder_3/config.json";
    let config: T5Config = files.json(name)?;
    let positive = [
        ("d_model", config.d_model),
        ("num_heads", config.num_heads),
        ("relative_attention_num_buckets", config.relative_attention_num_buckets),
    ];
    check_positive(files, name, &positive)?;
    if config.feed_forward_proj != "gated-gelu" {
        return Err(Error::malformed(
            files.path(name),
            format!(
                "`feed_forward_proj` is {:?}; Stable Diffusion 3.5 uses T5 v1.1 with \"gated-gelu\": download that encoder",
                config.feed_forward_proj
            ),
        ));
    }
    Ok(config)
}

/// Reads and checks the scheduler's configuration.
pub(crate) fn scheduler(files: &ModelFiles) -> Result<SchedulerConfig> {
    let name = "scheduler/scheduler_config.json";
    let config: SchedulerConfig = files.json(name)?;
    check_positive(files, name, &[("num_train_timesteps", config.num_train_timesteps)])?;
    if config.use_dynamic_shifting || config.shift <= 0.0 {
        return Err(Error::malformed(
            files.path(name),
            "has dynamic shifting or a shift that is not positive; SD 3.5 has a fixed shift of 3: download its file",
        ));
    }
    Ok(config)
}

fn check_positive(files: &ModelFiles, name: &str, positive: &[(&str, usize)]) -> Result<()> {
    match positive.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => {
            Err(Error::malformed(files.path(name), format!("`{key}` is 0, so the file is corrupt; download it again")))
        }
        None => Ok(()),
    }
}
