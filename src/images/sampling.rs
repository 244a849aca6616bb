//! The controls of the diffusion process.

use serde::{Deserialize, Serialize};

/// The controls of the diffusion process, for both modes.
///
/// A field that is `None` is left to the backend's default. A backend that cannot honour a field
/// refuses the request and names it; none drops one silently.
///
/// ```
/// use lumenfall::Sampling;
///
/// let sampling = Sampling { seed: Some(7), steps: Some(28), ..Sampling::default() };
/// assert_eq!(sampling.guidance, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Where the noise starts from: the same seed makes the same image. Image `i` of a request uses `seed + i`.
    pub seed: Option<u64>,
    /// How many denoising steps, 1 or more. More is slower and finer.
    pub steps: Option<u32>,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub guidance: Option<f32>,
    /// What the image is not to show.
    pub negative_prompt: Option<String>,
    /// How far an edit may move away from its source, above 0 (hardly) to 1 (entirely). Edit only.
    pub strength: Option<f32>,
    /// A further forward pass with some layers skipped, which sharpens anatomy and structure.
    pub skip_layer_guidance: Option<SkipLayerGuidance>,
}

/// Guidance away from what the model paints with some of its layers skipped.
///
/// The defaults are those that Stability publishes for Stable Diffusion 3.5 Medium.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkipLayerGuidance {
    /// The transformer blocks to skip, from 0.
    pub layers: Vec<u32>,
    /// How strongly to move away.
    pub scale: f32,
    /// The share of the steps after which it starts.
    pub start: f32,
    /// The share of the steps after which it stops.
    pub stop: f32,
}

impl Default for SkipLayerGuidance {
    fn default() -> Self {
        Self { layers: vec![7, 8, 9], scale: 2.5, start: 0.01, stop: 0.2 }
    }
}
