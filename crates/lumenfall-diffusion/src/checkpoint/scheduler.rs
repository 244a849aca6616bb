//! The scheduler's configuration.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::sampling::{DynamicShift, Sampler, Schedule, Shift, TimeShift};
use crate::weights::ModelFiles;

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
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
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

impl Default for SchedulerConfig {
    /// Returns the configuration of Stable Diffusion 3 and 3.5.
    fn default() -> Self {
        Self {
            class_name: None,
            shift: 3.0,
            num_train_timesteps: train_timesteps(),
            use_dynamic_shifting: false,
            base_shift: None,
            max_shift: None,
            base_image_seq_len: None,
            max_image_seq_len: None,
            time_shift_type: TimeShift::default(),
            shift_terminal: None,
            use_karras_sigmas: None,
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            invert_sigmas: false,
            stochastic_sampling: false,
            scale_factors: None,
        }
    }
}

/// Reads and checks the scheduler's configuration.
pub(crate) fn read(files: &ModelFiles) -> Result<SchedulerConfig> {
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
