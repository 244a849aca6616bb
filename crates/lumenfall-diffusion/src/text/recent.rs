//! The prompts that were encoded last.

use std::sync::{Mutex, PoisonError};

use super::options::{Reading, Texts};
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

/// The prompts that were encoded last, such as the empty prompt of guidance.
#[derive(Debug, Default)]
pub(super) struct RecentPrompts(Mutex<Vec<(Texts, Reading, EncodedPrompt)>>);

impl RecentPrompts {
    pub(super) fn get(&self, texts: &Texts, reading: &Reading) -> Option<EncodedPrompt> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|known| (&known.0, &known.1) == (texts, reading))?;
        let entry = entries.remove(index);
        let encoded = entry.2.detached();
        entries.push(entry);
        Some(encoded)
    }

    /// Adds a prompt and forgets the one whose last use is the longest ago.
    pub(super) fn add(&self, texts: &Texts, reading: &Reading, encoded: &EncodedPrompt) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|known| (&known.0, &known.1) != (texts, reading));
        if entries.len() >= CAPACITY {
            entries.remove(0);
        }
        entries.push((texts.clone(), reading.clone(), encoded.detached()));
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
        let reading = |t5_tokens, loras: &[u32]| Reading { t5_tokens, loras: loras.to_vec(), ..Reading::default() };
        let recent = RecentPrompts::default();
        for index in 0..CAPACITY {
            recent.add(&Texts::all(&index.to_string()), &reading(None, &[]), &encoded());
        }
        let knows =
            |prompt, t5_tokens, loras: &[u32]| recent.get(&Texts::all(prompt), &reading(t5_tokens, loras)).is_some();
        assert!(knows("0", None, &[]) && !knows("0", Some(77), &[]) && !knows("0", None, &[1]));
        recent.add(&Texts::all("new"), &reading(None, &[]), &encoded());
        assert!(knows("0", None, &[]) && !knows("1", None, &[]) && knows("new", None, &[]));
    }
}
