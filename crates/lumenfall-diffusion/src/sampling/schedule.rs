//! The schedule of a request: which noise levels (sigmas) its steps have.

use serde::{Deserialize, Serialize};

use super::sampler::Sampler;
use super::{decimal, sigmas};
use crate::checkpoint::scheduler::SchedulerConfig;
use crate::error::{Error, Result};
use crate::parameters::DEFAULT_STEPS;

/// A list of noise levels (sigmas), from almost pure noise to 0.
///
/// All lists except [`Schedule::Sigmas`] are shifted (see [`Shift`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Schedule {
    /// Evenly spaced timesteps, shifted: `FlowMatchEulerDiscreteScheduler` of diffusers, `normal` in ComfyUI. The default of
    /// most samplers.
    #[default]
    Shifted,
    /// Karras et al. (2022) with rho 7, between the first and last sigma of [`Schedule::Shifted`]: `use_karras_sigmas` of
    /// diffusers' `FlowMatchEulerDiscreteScheduler`.
    Karras,
    /// Evenly spaced logarithms between the same sigmas: `use_exponential_sigmas` of diffusers'
    /// `FlowMatchEulerDiscreteScheduler`.
    Exponential,
    /// Quantiles of the beta distribution with alpha and beta 0.6, between the same sigmas: `use_beta_sigmas` of diffusers'
    /// `FlowMatchEulerDiscreteScheduler`.
    Beta,
    /// `sgm_uniform` of ComfyUI: one more timestep than steps, without the last one.
    SgmUniform,
    /// `simple` of ComfyUI: entries of the 1000 training sigmas at equal distances.
    Simple,
    /// `use_flow_sigmas` of diffusers' `DPMSolverMultistepScheduler`. The default of [`Sampler::Dpmpp2mFlow`]. As in
    /// diffusers, the denoiser receives timesteps that are rounded down to integers.
    DpmSolver,
    /// `use_flow_sigmas` of diffusers' `UniPCMultistepScheduler`. The default of [`Sampler::UniPc`]. As in diffusers, the
    /// denoiser receives timesteps that are rounded down to integers.
    UniPc,
    /// These sigmas, to which no shift is applied. They must decrease, and be above 0 and at most 1. A final 0 is appended if
    /// it is missing. The number of steps is the number of sigmas above 0.
    Sigmas(Vec<f32>),
}

/// The shift of timesteps towards more noise: `f·t / (1 + (f − 1)·t)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Shift {
    /// The factor `f`: `shift` of diffusers, 3 for Stable Diffusion 3.5.
    Fixed(f64),
    /// A factor that depends on the image's size: `use_dynamic_shifting` of diffusers.
    Dynamic(DynamicShift),
}

/// A shift that depends on the number of image tokens, as in diffusers. A token of Stable Diffusion 3.5 covers 16x16 pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DynamicShift {
    /// The value that determines the factor. Default: on the line through `base_shift` at `base_image_seq_len` tokens and
    /// `max_shift` at `max_image_seq_len` tokens.
    pub mu: Option<f64>,
    /// How `mu` determines the factor.
    pub time_shift_type: TimeShift,
    /// Default: 0.5.
    pub base_shift: f64,
    /// Default: 1.15.
    pub max_shift: f64,
    /// Default: 256.
    pub base_image_seq_len: usize,
    /// Default: 4096.
    pub max_image_seq_len: usize,
}

impl Default for DynamicShift {
    fn default() -> Self {
        Self {
            mu: None,
            time_shift_type: TimeShift::default(),
            base_shift: 0.5,
            max_shift: 1.15,
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
        }
    }
}

/// How `mu` of a [`DynamicShift`] determines the factor: `time_shift_type` of diffusers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeShift {
    /// The factor is e to the power of `mu`.
    #[default]
    Exponential,
    /// The factor is `mu`.
    Linear,
}

/// Options for the sigmas of a request. A field that is `None` has the value of the model's `scheduler_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ScheduleOptions {
    /// The list of sigmas.
    pub schedule: Option<Schedule>,
    /// The shift of the timesteps. [`Schedule::Sigmas`] ignores it.
    pub shift: Option<Shift>,
    /// Stretches the list so that its last sigma above 0 has this value, above 0 and below 1. A list of one step stays
    /// unchanged. [`Schedule::Sigmas`] ignores it.
    pub shift_terminal: Option<f64>,
}

/// The sigmas of a request, decreasing to 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scheduler {
    steps: Vec<Step>,
    shift: f64,
}

/// One denoising step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// The sigma before the step.
    pub(crate) sigma: f32,
    /// The sigma after the step, 0 for the last step.
    pub(crate) next_sigma: f32,
    /// The denoiser's input for `sigma`.
    pub(crate) timestep: f32,
}

impl Scheduler {
    /// Creates the steps of a request for an image of `tokens` tokens.
    ///
    /// `steps` must be `None` or their number for [`Schedule::Sigmas`]. For the other schedules, `None` means
    /// [`DEFAULT_STEPS`].
    pub(crate) fn with_options(
        config: &SchedulerConfig,
        options: &ScheduleOptions,
        sampler: Sampler,
        steps: Option<u32>,
        tokens: usize,
    ) -> Result<Self> {
        let schedule = options.schedule.clone().or(config.schedule()).unwrap_or(sampler.default_schedule());
        let max = config.num_train_timesteps;
        let train = max as f64;
        let shift = options.shift.clone().unwrap_or_else(|| config.shift());
        let double = matches!(shift, Shift::Fixed(_));
        let shift = shift.factor(tokens)?;
        if let Schedule::Sigmas(sigmas) = schedule {
            return Self::from_sigmas(&sigmas, steps, shift, train);
        }
        let steps = steps.unwrap_or(DEFAULT_STEPS);
        if steps == 0 || steps as usize > max {
            return Err(Error::parameter(
                "steps",
                format!("is {steps}; use a number from 1 to {max} ({DEFAULT_STEPS} is a good default)"),
            ));
        }
        let terminal = options.shift_terminal.or(config.shift_terminal());
        if let Some(value) = terminal.filter(|value| !(*value > 0.0 && *value < 1.0)) {
            return Err(Error::parameter("shift_terminal", format!("is {value}; use a number above 0 and below 1")));
        }
        let curve = sigmas::Curve { shift, train, terminal, double };
        let values = curve.values(&schedule, steps);
        let truncated = matches!(schedule, Schedule::DpmSolver | Schedule::UniPc);
        let timesteps = values
            .iter()
            .map(|sigma| if truncated { (sigma * train).trunc() as f32 } else { *sigma as f32 * train as f32 });
        let sigmas: Vec<f32> = values.iter().map(|sigma| *sigma as f32).collect();
        if let Err(problem) = check(&sigmas) {
            let reason = format!("leads to invalid noise levels with {steps} steps: {problem}; use a smaller shift");
            return Err(Error::parameter("shift", reason));
        }
        Ok(Self { steps: pair(&sigmas, timesteps), shift })
    }

    fn from_sigmas(sigmas: &[f32], steps: Option<u32>, shift: f64, train: f64) -> Result<Self> {
        let sigmas = sigmas.strip_suffix(&[0.0]).unwrap_or(sigmas);
        check(sigmas).map_err(|problem| {
            Error::parameter("sigmas", format!("is invalid: {problem}; use decreasing numbers above 0 and up to 1"))
        })?;
        if let Some(steps) = steps.filter(|steps| *steps as usize != sigmas.len()) {
            return Err(Error::parameter(
                "steps",
                format!("is {steps}, but `sigmas` has {} values above 0; leave `steps` out", sigmas.len()),
            ));
        }
        Ok(Self { steps: pair(sigmas, sigmas.iter().map(|sigma| sigma * train as f32)), shift })
    }

    /// Keeps the last `steps * strength` steps, which are those of an edit.
    pub(crate) fn for_strength(mut self, strength: f32) -> Result<Self> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::parameter(
                "strength",
                format!("is {strength}; use a number above 0 (almost no change) and up to 1 (full change)"),
            ));
        }
        let steps = self.steps.len() as f64;
        let skipped = (steps - (steps * decimal(strength)).min(steps)) as usize;
        self.steps.drain(..skipped);
        if self.steps.is_empty() {
            return Err(Error::parameter(
                "strength",
                format!("is {strength}, which leaves no step of {steps} to compute; increase `strength` or `steps`"),
            ));
        }
        Ok(self)
    }

    /// Returns the factor of the shift, which [`SkipWindow::Sigma`](super::SkipWindow::Sigma) needs.
    pub(crate) fn shift(&self) -> f64 {
        self.shift
    }

    /// Returns the steps in the order of their computation.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.steps.clone()
    }
}

impl Shift {
    fn factor(&self, tokens: usize) -> Result<f64> {
        let (factor, name) = match self {
            Self::Fixed(factor) => (*factor, "shift"),
            Self::Dynamic(dynamic) => (dynamic.factor(tokens), "mu"),
        };
        if factor.is_finite() && factor > 0.0 {
            return Ok(factor);
        }
        Err(Error::parameter(name, format!("gives the shift {factor}; use a value that gives a finite one above 0")))
    }
}

impl DynamicShift {
    fn factor(&self, tokens: usize) -> f64 {
        let mu = self.mu.unwrap_or_else(|| {
            let range = self.max_image_seq_len as f64 - self.base_image_seq_len as f64;
            let slope = (self.max_shift - self.base_shift) / range;
            tokens as f64 * slope + (self.base_shift - slope * self.base_image_seq_len as f64)
        });
        match self.time_shift_type {
            TimeShift::Exponential => mu.exp(),
            TimeShift::Linear => mu,
        }
    }
}

/// Describes the first problem of a list of sigmas without its final 0.
fn check(sigmas: &[f32]) -> std::result::Result<(), String> {
    if sigmas.is_empty() {
        return Err("it has no value above 0".into());
    }
    let mut previous = f32::INFINITY;
    for (index, sigma) in sigmas.iter().enumerate() {
        if !(*sigma > 0.0 && *sigma <= 1.0) {
            return Err(format!("value {index} is {sigma}"));
        }
        if *sigma >= previous {
            return Err(format!("value {index}, {sigma}, is not below the previous one, {previous}"));
        }
        previous = *sigma;
    }
    Ok(())
}

fn pair(sigmas: &[f32], timesteps: impl Iterator<Item = f32>) -> Vec<Step> {
    let next = sigmas.iter().skip(1).chain(&[0.0]);
    let steps = sigmas.iter().zip(next).zip(timesteps);
    steps.map(|((sigma, next_sigma), timestep)| Step { sigma: *sigma, next_sigma: *next_sigma, timestep }).collect()
}
