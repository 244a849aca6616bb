//! Parameters of the diffusion process.

use serde::{Deserialize, Serialize};

/// Parameters of the diffusion process, for both modes.
///
/// The backend uses its default for a field that is `None`. It rejects a request that sets a field that it does not
/// support, and names the field in the error.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// The seed of the initial noise. Image `i` of a request (from 0) uses `seed + i`.
    pub seed: Option<u64>,
    /// The number of denoising steps, at least 1. More steps take longer and add detail.
    pub steps: Option<u32>,
    /// The scale of classifier-free guidance, 0 or more. 1 turns guidance off.
    pub guidance: Option<f32>,
    /// A description of what the image should not show.
    pub negative_prompt: Option<String>,
    /// The strength of an edit, above 0 (almost no change) up to 1 (the source image is ignored). Only for edits.
    pub strength: Option<f32>,
    /// Skip-layer guidance, which improves anatomy and structure at the cost of an additional forward pass per step.
    pub skip_layer_guidance: Option<SkipLayerGuidance>,
}

/// Guides the image away from the model's prediction with some of its layers skipped.
///
/// The defaults are those that Stability AI publishes for Stable Diffusion 3.5 Medium.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
