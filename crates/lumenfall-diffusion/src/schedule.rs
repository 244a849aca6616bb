//! The noise levels of a run, as diffusers' `FlowMatchEulerDiscreteScheduler` sets them.

use crate::config::SchedulerConfig;
use crate::error::{Error, Result};

/// The noise levels of a run, from the noisiest to 0: one more than there are steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    sigmas: Vec<f32>,
    timestep_scale: f32,
}

/// One denoising step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// The noise level before it.
    pub(crate) sigma: f32,
    /// The noise level after it.
    pub(crate) next: f32,
    /// The noise level as the denoiser takes it.
    pub(crate) timestep: f32,
}

impl Schedule {
    /// The levels of `steps` steps: linear from 1 to `shift(1/1000)`, shifted, and 0 at the end.
    ///
    /// The smallest level is shifted twice, as diffusers and Stability's own code do it.
    pub(crate) fn new(config: &SchedulerConfig, steps: u32) -> Result<Self> {
        if steps == 0 {
            return Err(Error::parameter("steps", "is 0; give at least 1, 28 is usual"));
        }
        let most = config.num_train_timesteps;
        if steps as usize > most {
            return Err(Error::parameter("steps", format!("is {steps}; give at most {most}, 28 is usual")));
        }
        let shift = |t: f64| config.shift * t / (1.0 + (config.shift - 1.0) * t);
        let smallest = shift(1.0 / config.num_train_timesteps as f64);
        let last = f64::from(steps.saturating_sub(1).max(1));
        let mut sigmas: Vec<f32> =
            (0..steps).map(|i| shift(1.0 + (smallest - 1.0) * f64::from(i) / last) as f32).collect();
        sigmas.push(0.0);
        Ok(Self { sigmas, timestep_scale: config.num_train_timesteps as f32 })
    }

    /// The part of the schedule that an edit of `strength` runs: the last `steps·strength` steps.
    pub(crate) fn for_strength(mut self, strength: f32) -> Result<Self> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::parameter(
                "strength",
                format!("is {strength}; give a number above 0 (hardly any change), up to 1"),
            ));
        }
        let steps = (self.sigmas.len() - 1) as f64;
        // Seven digits are all that an f32 holds: 0.6 of 5 steps is 3 of them, not a little more.
        let strength_digits = (f64::from(strength) * 1e7).round() / 1e7;
        let skipped = (steps - (steps * strength_digits).min(steps)) as usize;
        self.sigmas.drain(..skipped);
        if self.sigmas.len() < 2 {
            return Err(Error::parameter(
                "strength",
                format!("{strength} of {steps} steps leaves no step to run; raise `strength` or `steps`"),
            ));
        }
        Ok(self)
    }

    /// The noise level that the run starts from.
    pub(crate) fn first_sigma(&self) -> f32 {
        self.sigmas.first().copied().unwrap_or(1.0)
    }

    /// The steps in order.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let pairs = self.sigmas.iter().zip(self.sigmas.iter().skip(1));
        pairs.map(|(sigma, next)| Step { sigma: *sigma, next: *next, timestep: sigma * self.timestep_scale }).collect()
    }
}
