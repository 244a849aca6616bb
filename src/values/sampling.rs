//! Parameters of the diffusion process.

use serde::{Deserialize, Serialize};

use crate::backend::serde_form::json_text_in_binary_formats;
use crate::setters::setters;

/// Parameters of the diffusion process, for both modes.
///
/// The backend uses its default for a field that is `None`. It rejects a request that sets a field that it does not
/// support, and names the field in the error.
///
/// ```
/// use lumenfall::Sampling;
///
/// let sampling = Sampling::default().with_seed(7).with_steps(20);
/// assert_eq!((sampling.seed, sampling.steps), (Some(7), Some(20)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sampling {
    /// The seed of the initial noise. Image `i` of a request (from 0) uses `seed + i`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The number of denoising steps, at least 1. More steps take longer and add detail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// The scale of classifier-free guidance, 0 or more. 1 turns guidance off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f32>,
    /// A description of what the image should not show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// The strength of an edit, above 0 (almost no change) up to 1 (the source image is ignored). Only for edits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
    /// Skip-layer guidance, which improves anatomy and structure at the cost of an additional forward pass per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_layer_guidance: Option<SkipLayerGuidance>,
}

json_text_in_binary_formats!(Sampling);

impl Sampling {
    setters! {
        with_seed: seed = u64,
        with_steps: steps = u32,
        with_guidance: guidance = f32,
        with_negative_prompt: negative_prompt = impl Into<String>,
        with_strength: strength = f32,
        with_skip_layer_guidance: skip_layer_guidance = SkipLayerGuidance,
    }

    /// Returns whether no field is set.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Guides the image away from the model's prediction with some of its layers skipped.
///
/// The defaults are those that Stability AI publishes for Stable Diffusion 3.5 Medium.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SkipLayerGuidance {
    /// The indices of the transformer blocks to skip, from 0. Default: 7, 8 and 9.
    pub layers: Vec<u32>,
    /// The guidance scale. Default: 2.5.
    pub scale: f32,
    /// The fraction of the steps, from 0 to 1, after which the guidance starts. Default: 0.01.
    pub start: f32,
    /// The fraction of the steps, from 0 to 1, after which the guidance stops. Default: 0.2.
    pub stop: f32,
}

impl Default for SkipLayerGuidance {
    fn default() -> Self {
        Self { layers: vec![7, 8, 9], scale: 2.5, start: 0.01, stop: 0.2 }
    }
}
