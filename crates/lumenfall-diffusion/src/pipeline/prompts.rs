//! The prompts of a request: one for each encoder, and encoded.

use super::Pipeline;
use super::request::Request;
use crate::error::Result;
use crate::models::Conditioning;
use crate::parameters::{Callbacks, Parameters, Progress};
use crate::text::{Reading, TextOptions, Texts};

impl Pipeline {
    /// Encodes the prompt and, if guidance needs it, the negative prompt.
    pub(super) fn encode(
        &self,
        request: &Request,
        warnings: &mut Vec<String>,
        callbacks: Callbacks<'_>,
    ) -> Result<Vec<Conditioning>> {
        callbacks.progress(Progress::EncodingPrompt);
        let prompts = texts(&request.parameters);
        let (prompts, _) = prompts.split_at(if request.guidance.uses_negative_prompt() { 2 } else { 1 });
        let reading = Reading { loras: self.loras.text_key(), ..reading(&request.parameters) };
        self.text.encode(prompts, &reading, warnings, &|| callbacks.check_cancelled())
    }
}

/// Returns the prompt and the negative prompt for each encoder.
pub(super) fn texts(parameters: &Parameters) -> [Texts; 2] {
    let Parameters { prompt, negative_prompt, text, .. } = parameters;
    let TextOptions { clip_g_prompt, t5_prompt, clip_g_negative_prompt, t5_negative_prompt, .. } = text;
    let texts = |prompt: &str, clip_g: &Option<String>, t5: &Option<String>| {
        let own = |own: &Option<String>| own.as_deref().unwrap_or(prompt).to_owned();
        Texts { clip_l: prompt.to_owned(), clip_g: own(clip_g), t5: own(t5) }
    };
    let negative_prompt = negative_prompt.as_deref().unwrap_or("");
    [texts(prompt, clip_g_prompt, t5_prompt), texts(negative_prompt, clip_g_negative_prompt, t5_negative_prompt)]
}

/// Returns how prompts are read without LoRAs.
pub(super) fn reading(parameters: &Parameters) -> Reading {
    let TextOptions { weights, long_prompts, .. } = parameters.text;
    Reading { weights, long_prompts, t5_tokens: parameters.t5_tokens, loras: Vec::new() }
}
