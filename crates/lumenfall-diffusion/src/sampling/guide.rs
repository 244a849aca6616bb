//! Guidance of one request: which predictions each step needs, and how they are combined.

use super::decimal;
use super::guidance::{Guidance, GuidanceMethod, SkipLayers, SkipWindow};
use super::sampler::combine;
use super::schedule::Step;
use crate::error::Result;

/// Keeps the scale of CFG-Zero* finite, as in diffusers.
const ZERO_STAR_EPSILON: f64 = 1e-8;

/// The smallest norm by which APG divides, as `torch.nn.functional.normalize`.
const MIN_NORM: f64 = 1e-12;

/// A forward pass of the denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward<'a> {
    /// With the prompt.
    Conditional,
    /// With the negative prompt.
    Unconditional,
    /// With the prompt, without these transformer blocks.
    Skipping(&'a [usize]),
}

/// What a step needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// The velocity is 0.
    Nothing,
    /// Guidance is off.
    Conditional,
    Guided {
        skip: bool,
    },
}

/// The guidance of a request.
#[derive(Clone, Debug)]
pub(crate) struct GuidancePlan {
    guidance: Guidance,
    needs: Vec<Need>,
}

/// The guidance of one image.
#[derive(Clone, Debug)]
pub(crate) struct Guide<'a> {
    plan: &'a GuidancePlan,
    /// The running change of APG with momentum, empty before the first guided step.
    momentum: Vec<f32>,
}

impl GuidancePlan {
    /// Checks the options and plans the steps.
    ///
    /// `shift` is the factor of [`Scheduler::shift`](super::Scheduler::shift). `blocks` is the number of transformer blocks.
    pub(crate) fn new(guidance: &Guidance, steps: &[Step], shift: f64, blocks: usize) -> Result<Self> {
        guidance.check(steps.len(), blocks)?;
        let count = steps.len() as f64;
        let boundary = |fraction: f32| (decimal(fraction) * count) as usize;
        let guided = boundary(guidance.start)..boundary(guidance.end);
        let zeros = match guidance.method {
            GuidanceMethod::ZeroStar { zero_init_steps } => zero_init_steps as usize,
            _ => 0,
        };
        let need = |(index, step): (usize, &Step)| {
            if guidance.scale <= 1.0 {
                Need::Conditional
            } else if index < zeros {
                Need::Nothing
            } else if !guided.contains(&index) {
                Need::Conditional
            } else {
                let skip = guidance.skip_layers.as_ref();
                Need::Guided { skip: skip.is_some_and(|skip| skip.is_active(index, count, step.sigma, shift)) }
            }
        };
        Ok(Self { needs: steps.iter().enumerate().map(need).collect(), guidance: guidance.clone() })
    }

    /// Returns whether a step needs the negative prompt.
    pub(crate) fn uses_negative_prompt(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Guided { .. }))
    }

    /// Returns the number of forward passes of a step.
    pub(crate) fn forwards(&self, step: usize) -> usize {
        match self.need(step) {
            Need::Nothing => 0,
            Need::Conditional => 1,
            Need::Guided { skip } => 2 + usize::from(skip),
        }
    }

    /// Starts an image.
    pub(crate) fn guide(&self) -> Guide<'_> {
        Guide { plan: self, momentum: Vec::new() }
    }

    fn need(&self, step: usize) -> Need {
        self.needs.get(step).copied().unwrap_or(Need::Conditional)
    }
}

impl SkipLayers {
    fn is_active(&self, index: usize, count: f64, sigma: f32, shift: f64) -> bool {
        match self.window {
            SkipWindow::Steps { start, end } => {
                let index = index as f64;
                decimal(start) * count < index && index < decimal(end) * count
            }
            SkipWindow::Sigma { start, end } => {
                let sigma_at = |fraction: f32| {
                    let time = 1.0 - decimal(fraction);
                    shift * time / (1.0 + (shift - 1.0) * time)
                };
                (sigma_at(end)..=sigma_at(start)).contains(&f64::from(sigma))
            }
        }
    }
}

impl Guide<'_> {
    /// Predicts the velocity of a step for a latent of `len` values, with as few calls of `forward` as the step needs.
    pub(crate) fn velocity(
        &mut self,
        step: usize,
        len: usize,
        forward: &mut dyn FnMut(Forward<'_>) -> Result<Vec<f32>>,
    ) -> Result<Vec<f32>> {
        let plan = self.plan;
        let need = plan.need(step);
        if need == Need::Nothing {
            return Ok(vec![0.0; len]);
        }
        let conditional = forward(Forward::Conditional)?;
        let Need::Guided { skip } = need else { return Ok(conditional) };
        let unconditional = forward(Forward::Unconditional)?;
        let mut guided = self.combine(&conditional, &unconditional);
        if let Some(layers) = plan.guidance.skip_layers.as_ref().filter(|_| skip) {
            let skipping = forward(Forward::Skipping(&layers.layers))?;
            let change = combine(&conditional, 1.0, &skipping, -1.0);
            guided = combine(&guided, 1.0, &change, layers.scale);
        }
        Ok(rescaled(guided, &conditional, plan.guidance.rescale))
    }

    fn combine(&mut self, conditional: &[f32], unconditional: &[f32]) -> Vec<f32> {
        let scale = self.plan.guidance.scale;
        match self.plan.guidance.method {
            GuidanceMethod::Plain => {
                let change = combine(conditional, 1.0, unconditional, -1.0);
                combine(unconditional, 1.0, &change, scale)
            }
            GuidanceMethod::ZeroStar { .. } => {
                let alpha = dot(conditional, unconditional) / (dot(unconditional, unconditional) + ZERO_STAR_EPSILON);
                let change = combine(conditional, 1.0, unconditional, -alpha as f32);
                combine(unconditional, alpha as f32, &change, scale)
            }
            GuidanceMethod::Projected { eta, norm_threshold, momentum } => {
                let mut change = combine(conditional, 1.0, unconditional, -1.0);
                if let Some(momentum) = momentum {
                    if !self.momentum.is_empty() {
                        change = combine(&change, 1.0, &self.momentum, momentum);
                    }
                    self.momentum.clone_from(&change);
                }
                let change = projected(&change, conditional, eta, norm_threshold);
                combine(unconditional, 1.0, &change, scale)
            }
        }
    }
}

/// Limits the norm of `change`, and multiplies its part that is parallel to `direction` by `eta`.
fn projected(change: &[f32], direction: &[f32], eta: f32, norm_threshold: f32) -> Vec<f32> {
    let norm = dot(change, change).sqrt();
    let threshold = f64::from(norm_threshold);
    let limit = if threshold > 0.0 && norm > threshold { threshold / norm } else { 1.0 };
    let direction_norm = dot(direction, direction).sqrt().max(MIN_NORM);
    let parallel = limit * dot(change, direction) / (direction_norm * direction_norm);
    // change − parallel·direction + eta·parallel·direction
    combine(change, limit as f32, direction, (parallel * (f64::from(eta) - 1.0)) as f32)
}

/// Moves the standard deviation of `guided` towards that of `conditional` by the fraction `amount`.
fn rescaled(guided: Vec<f32>, conditional: &[f32], amount: f32) -> Vec<f32> {
    let deviation = variance(&guided).sqrt();
    if amount == 0.0 || deviation == 0.0 {
        return guided;
    }
    let ratio = variance(conditional).sqrt() / deviation;
    let amount = f64::from(amount);
    let factor = (amount * ratio + (1.0 - amount)) as f32;
    guided.into_iter().map(|value| value * factor).collect()
}

fn dot(first: &[f32], second: &[f32]) -> f64 {
    first.iter().zip(second).map(|(first, second)| f64::from(*first) * f64::from(*second)).sum()
}

/// Returns a multiple of the variance that depends only on the number of values.
fn variance(values: &[f32]) -> f64 {
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum()
}
