//! The `config.json` files of a model folder, which determine every dimension.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::sampling::{DynamicShift, Sampler, Schedule, Shift, TimeShift};
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
    #[serde(rename = "_class_name", default)]
    class_name: Option<String>,
    shift: f64,
    #[serde(default = "train_timesteps")]
    pub(crate) num_train_timesteps: usize,
    #[serde(default)]
    use_dynamic_shifting: bool,
    #[serde(default)]
    base_shift: Option<f64>,
    #[serde(default)]
    max_shift: Option<f64>,
    #[serde(default)]
    base_image_seq_len: Option<usize>,
    #[serde(default)]
    max_image_seq_len: Option<usize>,
    #[serde(default)]
    time_shift_type: TimeShift,
    #[serde(default)]
    shift_terminal: Option<f64>,
    #[serde(default)]
    use_karras_sigmas: Option<bool>,
    #[serde(default)]
    use_exponential_sigmas: Option<bool>,
    #[serde(default)]
    use_beta_sigmas: Option<bool>,
    #[serde(default)]
    invert_sigmas: bool,
    #[serde(default)]
    stochastic_sampling: bool,
    #[serde(default)]
    scale_factors: Option<Vec<f64>>,
}

fn train_timesteps() -> usize {
    1000
}

impl SchedulerConfig {
    /// The most training timesteps, which are also the most steps of a request.
    const MAX_TRAIN_TIMESTEPS: usize = 1_000_000;

    /// Returns the sampler that diffusers uses with this file.
    pub(crate) fn sampler(&self) -> Sampler {
        match self.class_name.as_deref() {
            Some("FlowMatchHeunDiscreteScheduler") => Sampler::Heun,
            Some("FlowMatchLCMScheduler") => Sampler::Lcm,
            _ if self.stochastic_sampling => Sampler::Lcm,
            _ => Sampler::Euler,
        }
    }

    /// Returns the schedule that the file requires, if it requires one.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        let requested = [
            (self.use_karras_sigmas, Schedule::Karras),
            (self.use_exponential_sigmas, Schedule::Exponential),
            (self.use_beta_sigmas, Schedule::Beta),
        ];
        requested.into_iter().find(|(used, _)| *used == Some(true)).map(|(_, schedule)| schedule)
    }

    /// Returns the shift of the timesteps.
    pub(crate) fn shift(&self) -> Shift {
        if !self.use_dynamic_shifting {
            return Shift::Fixed(self.shift);
        }
        let default = DynamicShift::default();
        Shift::Dynamic(DynamicShift {
            mu: None,
            time_shift_type: self.time_shift_type,
            base_shift: self.base_shift.unwrap_or(default.base_shift),
            max_shift: self.max_shift.unwrap_or(default.max_shift),
            base_image_seq_len: self.base_image_seq_len.unwrap_or(default.base_image_seq_len),
            max_image_seq_len: self.max_image_seq_len.unwrap_or(default.max_image_seq_len),
        })
    }

    /// Returns the value of the last sigma above 0. As in diffusers, 0 means that there is none.
    pub(crate) fn shift_terminal(&self) -> Option<f64> {
        self.shift_terminal.filter(|value| *value != 0.0)
    }

    /// Describes the first setting that is not supported.
    fn check(&self) -> std::result::Result<(), String> {
        let supported = ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"];
        let curves = [self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas];
        if let Some(name) = self.class_name.as_deref().filter(|name| !supported.contains(name)) {
            return Err(format!("`_class_name` is {name:?}; one of {supported:?} is supported"));
        }
        if !(1..=Self::MAX_TRAIN_TIMESTEPS).contains(&self.num_train_timesteps) {
            let (found, max) = (self.num_train_timesteps, Self::MAX_TRAIN_TIMESTEPS);
            return Err(format!("`num_train_timesteps` is {found}; 1 to {max} are supported"));
        }
        if !(self.shift.is_finite() && self.shift > 0.0) {
            return Err(format!("`shift` is {}, but must be above 0", self.shift));
        }
        if let Some(value) = self.shift_terminal().filter(|value| !(*value > 0.0 && *value < 1.0)) {
            return Err(format!("`shift_terminal` is {value}, but must be from 0 to below 1"));
        }
        if curves.iter().filter(|used| **used == Some(true)).count() > 1 {
            return Err("has several of `use_karras_sigmas`, `use_exponential_sigmas` and `use_beta_sigmas`".into());
        }
        if let Shift::Dynamic(dynamic) = self.shift() {
            let (base, max) = (dynamic.base_image_seq_len, dynamic.max_image_seq_len);
            if base == max {
                return Err(format!("`base_image_seq_len` and `max_image_seq_len` are both {base}, but must differ"));
            }
        }
        if self.invert_sigmas {
            return Err("`invert_sigmas` is true, which is not supported".into());
        }
        if self.scale_factors.is_some() {
            return Err("`scale_factors` is set, which is not supported".into());
        }
        Ok(())
    }
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
    match config.check() {
        Ok(()) => Ok(config),
        Err(reason) => Err(Error::malformed(
            files.path(name),
            format!("{reason}: use the file of Stable Diffusion 3.5, which has a fixed `shift` of 3"),
        )),
    }
}

fn check_positive(files: &ModelFiles, name: &str, positive: &[(&str, usize)]) -> Result<()> {
    match positive.iter().find(|(_, value)| *value == 0) {
        Some((key, _)) => {
            Err(Error::malformed(files.path(name), format!("`{key}` is 0, so the file is corrupt; download it again")))
        }
        None => Ok(()),
    }
}
