//! The options of guidance.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::parameters::DEFAULT_GUIDANCE;

/// How predictions for the prompt and for the negative prompt are combined.
///
/// Everything here works on predicted velocities, as diffusers' guiders do with a flow model. Guidance is off in steps outside of
/// [`start`](Self::start) and [`end`](Self::end), and always if the scale is at most 1: such a step runs the model once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Guidance {
    /// The scale. 1 switches guidance off. Default: [`DEFAULT_GUIDANCE`].
    pub scale: f32,
    /// The fraction of the steps, rounded down, after which guidance starts. Default: 0.
    pub start: f32,
    /// The fraction of the steps, rounded down, after which guidance ends. Default: 1.
    pub end: f32,
    /// How far the standard deviation of the result is moved to that of the prediction for the prompt, from 0 to 1:
    /// `guidance_rescale` of diffusers. Default: 0.
    pub rescale: f32,
    /// The formula. Default: [`GuidanceMethod::Plain`].
    pub method: GuidanceMethod,
    /// Additional guidance away from predictions without some transformer blocks. Default: none.
    pub skip_layers: Option<SkipLayers>,
}

impl Guidance {
    /// Returns plain guidance in all steps. A scale of 1 switches it off.
    pub fn new(scale: f32) -> Self {
        Self { scale, ..Self::default() }
    }

    /// Returns the greatest number of forward passes of a step at one noise level.
    pub(crate) fn most_forwards(&self) -> usize {
        if self.scale > 1.0 { 2 + usize::from(self.skip_layers.is_some()) } else { 1 }
    }
}

impl Default for Guidance {
    fn default() -> Self {
        Self {
            scale: DEFAULT_GUIDANCE,
            start: 0.0,
            end: 1.0,
            rescale: 0.0,
            method: GuidanceMethod::default(),
            skip_layers: None,
        }
    }
}

/// The formula that combines the predictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GuidanceMethod {
    /// Classifier-free guidance: `ClassifierFreeGuidance` of diffusers.
    #[default]
    Plain,
    /// CFG-Zero*, which scales the prediction for the negative prompt: `ClassifierFreeZeroStarGuidance` of diffusers.
    ZeroStar {
        /// The number of first steps whose velocity is 0, without running the model. Diffusers' default: 1.
        zero_init_steps: u32,
    },
    /// Adaptive projected guidance: `AdaptiveProjectedGuidance` of diffusers, on the whole prediction.
    Projected {
        /// The factor of the change parallel to the prediction for the prompt. Diffusers' default: 1.
        eta: f32,
        /// The maximum norm of the change, or 0 for no limit. Diffusers' default: 15.
        norm_threshold: f32,
        /// The factor of the previous step's change, which is added. Diffusers' default: none.
        momentum: Option<f32>,
    },
}

/// Skip-layer guidance: adds `scale · (conditional − conditional without some transformer blocks)`.
///
/// Each step in the window runs the model a third time. Steps in which guidance is off do not use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SkipLayers {
    /// The indices of the skipped transformer blocks.
    pub layers: Vec<usize>,
    /// The scale.
    pub scale: f32,
    /// The steps that use it.
    pub window: SkipWindow,
}

/// The steps that use skip-layer guidance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipWindow {
    /// Step `i` of `n`, counted from 0, if `start·n < i < end·n`.
    Steps {
        /// The fraction of the steps after which it starts.
        start: f32,
        /// The fraction of the steps after which it ends.
        end: f32,
    },
    /// Steps whose sigma is between those of two fractions of the timesteps, which the model's shift converts to sigmas.
    Sigma {
        /// The fraction of the timesteps after which it starts.
        start: f32,
        /// The fraction of the timesteps after which it ends.
        end: f32,
    },
}

impl SkipLayers {
    /// Returns skip-layer guidance without these transformer blocks. The named settings are those of published programs.
    pub fn new(layers: Vec<usize>, scale: f32, window: SkipWindow) -> Self {
        Self { layers, scale, window }
    }

    /// The blocks that Stability AI recommends for Stable Diffusion 3.5 Medium.
    const MEDIUM: [usize; 3] = [7, 8, 9];

    /// Returns the setting of diffusers: scale 2.8 from 1 % to 20 % of the steps.
    pub fn diffusers() -> Self {
        Self::medium(2.8, SkipWindow::Steps { start: 0.01, end: 0.2 })
    }

    /// Returns the setting of Stability AI's reference code: scale 2.5 from 1 % to 30 % of the steps. It is meant for a guidance
    /// scale of 5 and 50 steps.
    pub fn stability() -> Self {
        Self::medium(2.5, SkipWindow::Steps { start: 0.01, end: 0.3 })
    }

    /// Returns the setting of ComfyUI: scale 3 from 1 % to 15 % of the timesteps.
    pub fn comfyui() -> Self {
        Self::medium(3.0, SkipWindow::Sigma { start: 0.01, end: 0.15 })
    }

    fn medium(scale: f32, window: SkipWindow) -> Self {
        Self { layers: Self::MEDIUM.to_vec(), scale, window }
    }
}

impl Guidance {
    /// Checks the options for a request of `steps` steps to a model with `blocks` transformer blocks.
    pub(super) fn check(&self, steps: usize, blocks: usize) -> Result<()> {
        if !(self.scale.is_finite() && self.scale >= 0.0) {
            let reason =
                format!("is {}; use 1 (no guidance) or more ({DEFAULT_GUIDANCE} is a good default)", self.scale);
            return Err(Error::parameter("guidance", reason));
        }
        check_range("guidance start and end", self.start, self.end)?;
        if !(0.0..=1.0).contains(&self.rescale) {
            return Err(Error::parameter("rescale", format!("is {}; use a number from 0 to 1", self.rescale)));
        }
        self.method.check(steps)?;
        self.skip_layers.as_ref().map_or(Ok(()), |skip| skip.check(blocks))
    }
}

impl GuidanceMethod {
    fn check(&self, steps: usize) -> Result<()> {
        match *self {
            Self::ZeroStar { zero_init_steps } if zero_init_steps as usize >= steps => Err(Error::parameter(
                "zero_init_steps",
                format!("is {zero_init_steps}, but the request has {steps} steps; use a smaller number"),
            )),
            Self::Projected { eta, norm_threshold, momentum } => {
                let finite = eta.is_finite() && momentum.is_none_or(f32::is_finite);
                if finite && norm_threshold.is_finite() && norm_threshold >= 0.0 {
                    return Ok(());
                }
                let reason = format!(
                    "has eta {eta}, norm_threshold {norm_threshold} and momentum {momentum:?}; \
                     use finite numbers, and a threshold of at least 0"
                );
                Err(Error::parameter("projected guidance", reason))
            }
            _ => Ok(()),
        }
    }
}

impl SkipLayers {
    fn check(&self, blocks: usize) -> Result<()> {
        if self.layers.is_empty() {
            return Err(Error::parameter("skip_layer_guidance", "has no layers; name at least one"));
        }
        if let Some(layer) = self.layers.iter().find(|layer| **layer >= blocks) {
            let last = blocks.saturating_sub(1);
            return Err(Error::parameter(
                "skip_layer_guidance",
                format!("has layer {layer}; the model has layers 0 to {last}"),
            ));
        }
        if !self.scale.is_finite() {
            return Err(Error::parameter(
                "skip_layer_guidance",
                format!("has the scale {}; use a finite number", self.scale),
            ));
        }
        let (SkipWindow::Steps { start, end } | SkipWindow::Sigma { start, end }) = self.window;
        check_range("skip_layer_guidance start and end", start, end)
    }
}

fn check_range(name: &'static str, start: f32, end: f32) -> Result<()> {
    if 0.0 <= start && start <= end && end <= 1.0 {
        return Ok(());
    }
    Err(Error::parameter(name, format!("are {start} and {end}; use numbers from 0 to 1, the smaller one first")))
}
