//! The options of prompts, and the prompts as the encoders receive them.

use serde::{Deserialize, Serialize};

use super::sequences::Fit;
use super::weights::PromptWeights;

/// The maximum number of T5 tokens, as in diffusers.
pub(crate) const MAX_T5_TOKENS: usize = 512;

/// How the text encoders read the prompts of a request.
///
/// ```
/// use lumenfall_diffusion::{LongPrompts, Parameters, PromptWeights};
///
/// let mut parameters = Parameters::new("a (red:1.3) circle");
/// parameters.text.weights = PromptWeights::ComfyUi;
/// parameters.text.long_prompts = LongPrompts::Chunks;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextOptions {
    /// The meaning of brackets in prompts.
    pub weights: PromptWeights,
    /// The treatment of prompts that are too long for the CLIP encoders.
    pub long_prompts: LongPrompts,
    /// The prompt for CLIP-G, `prompt_2` of diffusers. Default: the prompt.
    pub clip_g_prompt: Option<String>,
    /// The prompt for T5, `prompt_3` of diffusers. Default: the prompt.
    pub t5_prompt: Option<String>,
    /// The negative prompt for CLIP-G, `negative_prompt_2` of diffusers. Default: the negative prompt.
    pub clip_g_negative_prompt: Option<String>,
    /// The negative prompt for T5, `negative_prompt_3` of diffusers. Default: the negative prompt.
    pub t5_negative_prompt: Option<String>,
}

/// The treatment of prompts that are too long for the CLIP encoders, which support 75 tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LongPrompts {
    /// The end of the prompt is left out, with a warning, as in diffusers.
    #[default]
    Truncate,
    /// The prompt is encoded in chunks of up to 75 tokens, as in ComfyUI and AUTOMATIC1111's web interface. The pooled output is that
    /// of the first chunk.
    Chunks,
}

/// A prompt for each encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Texts {
    pub(crate) clip_l: String,
    pub(crate) clip_g: String,
    pub(crate) t5: String,
}

impl Texts {
    /// Returns whether this is the empty prompt.
    pub(super) fn are_empty(&self) -> bool {
        [&self.clip_l, &self.clip_g, &self.t5].iter().all(|text| text.is_empty())
    }
}

#[cfg(test)]
impl Texts {
    /// Returns the same text for all encoders.
    pub(crate) fn all(text: &str) -> Self {
        Self { clip_l: text.into(), clip_g: text.into(), t5: text.into() }
    }
}

/// Everything that encoded prompts depend on besides the model and their texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reading {
    pub(crate) weights: PromptWeights,
    pub(crate) long_prompts: LongPrompts,
    pub(crate) t5_tokens: Option<usize>,
    /// The strengths of the LoRAs that change text encoders.
    pub(crate) loras: Vec<u32>,
}

impl Reading {
    /// Returns how a prompt is fitted to a CLIP encoder.
    pub(super) fn clip_fit(&self) -> Fit {
        match (self.long_prompts, self.weights) {
            (LongPrompts::Truncate, _) => Fit::Truncate,
            (LongPrompts::Chunks, PromptWeights::ComfyUi) => Fit::ChunksOfWholeSegments,
            (LongPrompts::Chunks, _) => Fit::Chunks,
        }
    }
}
