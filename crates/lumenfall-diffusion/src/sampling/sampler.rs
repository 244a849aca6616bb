//! The samplers, which turn predicted velocities into the latent of the next step.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::multistep::{self, Multistep};
use super::schedule::{Schedule, Step};
use crate::error::Result;

/// The method that integrates the denoiser's predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sampler {
    /// `FlowMatchEulerDiscreteScheduler` of diffusers, `euler` in ComfyUI.
    #[default]
    Euler,
    /// `FlowMatchHeunDiscreteScheduler` of diffusers. It runs the model twice in each step but the last.
    Heun,
    /// DPM-Solver++(2M) as in Stability AI's own code and ComfyUI (`dpmpp_2m`): it integrates over `−ln σ`.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// DPM-Solver++(2M) as in diffusers: `DPMSolverMultistepScheduler` with `use_flow_sigmas`, which integrates over
    /// `ln((1 − σ)/σ)`. Its default schedule is [`Schedule::DpmSolver`].
    #[serde(rename = "dpmpp_2m_flow")]
    Dpmpp2mFlow,
    /// `UniPCMultistepScheduler` of diffusers with `use_flow_sigmas`, order 2 and `bh2`. Its default schedule is
    /// [`Schedule::UniPc`].
    UniPc,
    /// Ancestral Euler for flow models, with eta 1: `euler_ancestral` in ComfyUI. It adds noise after each step but the last.
    EulerAncestral,
    /// `FlowMatchLCMScheduler` of diffusers, and `FlowMatchEulerDiscreteScheduler` with `stochastic_sampling`. It adds noise
    /// after each step but the last. For distilled models.
    Lcm,
}

impl Sampler {
    /// Returns the schedule that the sampler's reference uses.
    pub fn default_schedule(self) -> Schedule {
        match self {
            Self::Dpmpp2mFlow => Schedule::DpmSolver,
            Self::UniPc => Schedule::UniPc,
            _ => Schedule::Shifted,
        }
    }
}

/// The point at which the model predicts a velocity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    /// The index of the step that starts at this point. Heun's second prediction of a step is at the start of the next one.
    pub(crate) step: usize,
    /// The noise level.
    pub(crate) sigma: f32,
    /// The denoiser's input for `sigma`.
    pub(crate) timestep: f32,
}

/// The state after a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepResult<'a> {
    /// The number of completed steps, from 1.
    pub(crate) completed: usize,
    /// The latent, with the noise of the next step.
    pub(crate) latent: &'a [f32],
    /// The image that the model predicted in this step: the latent without noise, for previews.
    pub(crate) denoised: &'a [f32],
}

/// Predicts the velocity of a latent.
pub(crate) type Velocity<'a> = dyn FnMut(&[f32], Point) -> Result<Vec<f32>> + 'a;

/// Computes the steps of one image.
///
/// `noise` returns fresh noise of the latent's size. It is called only by samplers that add noise, once per step except the last,
/// and must continue the stream of the initial latent, so that an image does not depend on the others of a request.
///
/// If `after_step` returns `Break`, the result is the image that the model predicted in that step.
pub(crate) fn sample(
    sampler: Sampler,
    steps: &[Step],
    mut latent: Vec<f32>,
    velocity: &mut Velocity<'_>,
    noise: &mut dyn FnMut() -> Result<Vec<f32>>,
    after_step: &mut dyn FnMut(StepResult<'_>) -> Result<ControlFlow<()>>,
) -> Result<Vec<f32>> {
    let mut multistep = Multistep::default();
    for (index, step) in steps.iter().enumerate() {
        let predicted = velocity(&latent, point(index, step))?;
        let denoised = combine(&latent, 1.0, &predicted, -step.sigma);
        latent = match sampler {
            Sampler::Euler => combine(&latent, 1.0, &predicted, step.next_sigma - step.sigma),
            Sampler::Heun => heun(&latent, &predicted, step, steps.get(index + 1), index, velocity)?,
            Sampler::Dpmpp2m => multistep.dpm(multistep::inverse_log, step, &latent, &denoised),
            Sampler::Dpmpp2mFlow => multistep.dpm(multistep::log_signal_to_noise, step, &latent, &denoised),
            Sampler::UniPc => multistep.unipc(step, &latent, &denoised),
            Sampler::EulerAncestral | Sampler::Lcm if step.next_sigma == 0.0 => denoised.clone(),
            Sampler::EulerAncestral => ancestral(&latent, &denoised, step, &noise()?),
            Sampler::Lcm => combine(&denoised, 1.0 - step.next_sigma, &noise()?, step.next_sigma),
        };
        let result = StepResult { completed: index + 1, latent: &latent, denoised: &denoised };
        if after_step(result)?.is_break() {
            return Ok(denoised);
        }
    }
    Ok(latent)
}

fn point(step: usize, start: &Step) -> Point {
    Point { step, sigma: start.sigma, timestep: start.timestep }
}

/// Averages the velocities at both ends of the step. The last step has no velocity at its end and is an Euler step.
fn heun(
    latent: &[f32],
    predicted: &[f32],
    step: &Step,
    next: Option<&Step>,
    index: usize,
    velocity: &mut Velocity<'_>,
) -> Result<Vec<f32>> {
    let distance = step.next_sigma - step.sigma;
    let end = combine(latent, 1.0, predicted, distance);
    let Some(next) = next else { return Ok(end) };
    let at_end = velocity(&end, point(index + 1, next))?;
    Ok(combine(latent, 1.0, &combine(predicted, 0.5, &at_end, 0.5), distance))
}

/// Steps below the next sigma and adds noise up to it, so that the variance remains that of a flow model.
fn ancestral(latent: &[f32], denoised: &[f32], step: &Step, noise: &[f32]) -> Vec<f32> {
    let (sigma, next) = (f64::from(step.sigma), f64::from(step.next_sigma));
    let ratio = next / sigma;
    let down = next * ratio;
    let kept = down / sigma;
    let scale = (1.0 - next) / (1.0 - down);
    let added = (next * next - down * down * scale * scale).max(0.0).sqrt();
    let stepped = combine(latent, (scale * kept) as f32, denoised, (scale * (1.0 - kept)) as f32);
    combine(&stepped, 1.0, noise, added as f32)
}

/// Returns `a·first + b·second`.
pub(crate) fn combine(first: &[f32], a: f32, second: &[f32], b: f32) -> Vec<f32> {
    first.iter().zip(second).map(|(first, second)| a * first + b * second).collect()
}
