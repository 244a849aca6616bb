//! The flow-matching Euler scheduler, equivalent to `FlowMatchEulerDiscreteScheduler` of diffusers.

use crate::config::SchedulerConfig;
use crate::error::{Error, Result};

/// The noise levels (sigmas) of a request, decreasing to 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scheduler {
    /// One more than the number of steps.
    sigmas: Vec<f32>,
    timestep_scale: f32,
}

/// One denoising step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// The sigma before the step.
    pub(crate) sigma: f32,
    /// The sigma after the step.
    pub(crate) next_sigma: f32,
    /// The denoiser's input for `sigma`.
    pub(crate) timestep: f32,
}

impl Scheduler {
    /// Creates the sigmas of `steps` steps: linear from 1 to `shift(1/1000)`, then shifted, and a final 0.
    ///
    /// This shifts the smallest sigma twice, as diffusers and Stability AI's own code do.
    pub(crate) fn new(config: &SchedulerConfig, steps: u32) -> Result<Self> {
        let max = config.num_train_timesteps;
        if steps == 0 || steps as usize > max {
            return Err(Error::parameter(
                "steps",
                format!("is {steps}; use a number from 1 to {max} (28 is a good default)"),
            ));
        }
        let shift = |t: f64| config.shift * t / (1.0 + (config.shift - 1.0) * t);
        let smallest = shift(1.0 / config.num_train_timesteps as f64);
        let last = f64::from(steps.saturating_sub(1).max(1));
        let mut sigmas: Vec<f32> =
            (0..steps).map(|i| shift(1.0 + (smallest - 1.0) * f64::from(i) / last) as f32).collect();
        sigmas.push(0.0);
        Ok(Self { sigmas, timestep_scale: config.num_train_timesteps as f32 })
    }

    /// Keeps the last `steps * strength` steps, which are those of an edit.
    pub(crate) fn for_strength(mut self, strength: f32) -> Result<Self> {
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::parameter(
                "strength",
                format!("is {strength}; use a number above 0 (almost no change) and up to 1 (full change)"),
            ));
        }
        let steps = (self.sigmas.len() - 1) as f64;
        // Rounding to the precision of an f32 makes 0.6 of 5 steps exactly 3.
        let rounded = (f64::from(strength) * 1e7).round() / 1e7;
        let skipped = (steps - (steps * rounded).min(steps)) as usize;
        self.sigmas.drain(..skipped);
        if self.sigmas.len() < 2 {
            return Err(Error::parameter(
                "strength",
                format!("is {strength}, which leaves no step of {steps} to compute; increase `strength` or `steps`"),
            ));
        }
        Ok(self)
    }

    /// Returns the sigma of the initial latent.
    pub(crate) fn initial_sigma(&self) -> f32 {
        self.sigmas.first().copied().unwrap_or(1.0)
    }

    /// Returns the steps in the order of their computation.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let pairs = self.sigmas.iter().zip(self.sigmas.iter().skip(1));
        pairs
            .map(|(sigma, next)| Step { sigma: *sigma, next_sigma: *next, timestep: sigma * self.timestep_scale })
            .collect()
    }
}
