//! The prompts that were encoded last.

use std::sync::{Mutex, PoisonError};

use crate::models::Conditioning;

/// The number of prompts. One takes 5.5 MB in Stable Diffusion 3.5.
const CAPACITY: usize = 8;

/// An encoded prompt.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPrompt {
    pub(crate) conditioning: Conditioning,
    /// A warning for each encoder that truncated the prompt.
    pub(crate) warnings: Vec<String>,
}

impl EncodedPrompt {
    /// Returns a copy that shares no values, so that the stored prompts keep no copy of them on a GPU.
    fn detached(&self) -> Self {
        let Conditioning { context, pooled } = &self.conditioning;
        let conditioning = Conditioning { context: context.detached(), pooled: pooled.detached() };
        Self { conditioning, warnings: self.warnings.clone() }
    }
}

/// The prompts that were encoded last, such as the empty prompt of guidance, with their number of T5 tokens.
#[derive(Debug, Default)]
pub(super) struct RecentPrompts(Mutex<Vec<(String, usize, EncodedPrompt)>>);

impl RecentPrompts {
    pub(super) fn get(&self, prompt: &str, t5_tokens: usize) -> Option<EncodedPrompt> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|(known, tokens, _)| known == prompt && *tokens == t5_tokens)?;
        let entry = entries.remove(index);
        let encoded = entry.2.detached();
        entries.push(entry);
        Some(encoded)
    }

    /// Adds a prompt and forgets the one whose last use is the longest ago.
    pub(super) fn add(&self, prompt: &str, t5_tokens: usize, encoded: &EncodedPrompt) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(known, tokens, _)| known != prompt || *tokens != t5_tokens);
        if entries.len() >= CAPACITY {
            entries.remove(0);
        }
        entries.push((prompt.to_owned(), t5_tokens, encoded.detached()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn the_prompt_whose_last_use_is_the_longest_ago_is_forgotten() {
        let encoded = || {
            let tensor = Tensor::new(vec![0.0], &[1, 1]).unwrap();
            let conditioning = Conditioning { context: tensor.clone(), pooled: tensor };
            EncodedPrompt { conditioning, warnings: Vec::new() }
        };
        let recent = RecentPrompts::default();
        for index in 0..CAPACITY {
            recent.add(&index.to_string(), 256, &encoded());
        }
        assert!(recent.get("0", 256).is_some() && recent.get("0", 77).is_none());
        recent.add("new", 256, &encoded());
        assert!(recent.get("0", 256).is_some() && recent.get("1", 256).is_none() && recent.get("new", 256).is_some());
    }
}
