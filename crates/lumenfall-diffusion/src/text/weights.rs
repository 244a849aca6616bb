//! The weights of words in prompts, in the notations of other programs.

mod a1111;
mod comfyui;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// The weight of a group without a number, relative to the text around it.
const GROUP: f64 = 1.1;

/// The largest magnitude of a weight. Larger ones could overflow in the denoiser.
const MAX_WEIGHT: f64 = 1e6;

/// The meaning of brackets in prompts. No text is an error: what is not in the notation stays a part of the prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PromptWeights {
    /// Brackets are text.
    #[default]
    Off,
    /// As in ComfyUI: `(word:1.2)` sets the weight, `(word)` multiplies it by 1.1, and `\(` and `\)` are text.
    ///
    /// The features of a word with the weight w are `(z - e) * w + e`, where e are those of the empty prompt, in all three encoders.
    #[serde(rename = "comfyui")]
    ComfyUi,
    /// As in AUTOMATIC1111's web interface: `(word:1.2)` multiplies the weight, `(word)` by 1.1 and `[word]` by 1/1.1. `\(`, `\)`, `\[`,
    /// `\]` and `\\` are text. `BREAK` starts a new chunk.
    ///
    /// The features of the CLIP encoders are multiplied by the weights, and then scaled such that the mean of a chunk does not change.
    /// T5 receives the text without the notation, and no weights.
    A1111,
}

/// A part of a prompt whose words have the same weight.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) text: String,
    pub(crate) weight: f32,
    /// Whether a `BREAK` precedes the text.
    pub(crate) starts_chunk: bool,
}

impl PromptWeights {
    /// Splits a prompt into parts with their weights.
    pub(crate) fn parse(self, prompt: &str) -> Vec<Segment> {
        match self {
            Self::Off => vec![Segment { text: prompt.to_owned(), weight: 1.0, starts_chunk: false }],
            Self::ComfyUi => comfyui::parse(prompt),
            Self::A1111 => a1111::parse(prompt),
        }
    }
}

/// Limits a weight, so that a product of weights is finite.
fn limited(weight: f64) -> f64 {
    weight.clamp(-MAX_WEIGHT, MAX_WEIGHT)
}
