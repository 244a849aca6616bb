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

/// Everything that an encoded prompt depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    prompt: String,
    t5_tokens: usize,
    /// The strengths of the LoRAs that change text encoders.
    loras: Vec<u32>,
}

impl Key {
    pub(super) fn new(prompt: &str, t5_tokens: usize, loras: &[u32]) -> Self {
        Self { prompt: prompt.to_owned(), t5_tokens, loras: loras.to_vec() }
    }
}

/// The prompts that were encoded last, such as the empty prompt of guidance.
#[derive(Debug, Default)]
pub(super) struct RecentPrompts(Mutex<Vec<(Key, EncodedPrompt)>>);

impl RecentPrompts {
    pub(super) fn get(&self, key: &Key) -> Option<EncodedPrompt> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|(known, _)| known == key)?;
        let entry = entries.remove(index);
        let encoded = entry.1.detached();
        entries.push(entry);
        Some(encoded)
    }

    /// Adds a prompt and forgets the one whose last use is the longest ago.
    pub(super) fn add(&self, key: Key, encoded: &EncodedPrompt) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(known, _)| *known != key);
        if entries.len() >= CAPACITY {
            entries.remove(0);
        }
        entries.push((key, encoded.detached()));
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
            recent.add(Key::new(&index.to_string(), 256, &[]), &encoded());
        }
        let knows = |prompt, t5_tokens, loras: &[u32]| recent.get(&Key::new(prompt, t5_tokens, loras)).is_some();
        assert!(knows("0", 256, &[]) && !knows("0", 77, &[]) && !knows("0", 256, &[1]));
        recent.add(Key::new("new", 256, &[]), &encoded());
        assert!(knows("0", 256, &[]) && !knows("1", 256, &[]) && knows("new", 256, &[]));
    }
}
