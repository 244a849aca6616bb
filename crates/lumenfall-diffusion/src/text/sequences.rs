//! From the parts of a prompt to sequences of token ids of the length that an encoder expects.

use super::tokenizer::Tokenizer;
use super::weights::Segment;
use crate::error::Result;

/// ComfyUI does not divide a part with fewer tokens if it fits into the next chunk.
const LONG_SEGMENT: usize = 8;

/// Token ids with their weights: the start token, the text, the end token and padding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    /// The weight of each token: 1 for those that are not text.
    pub(crate) weights: Vec<f32>,
}

impl Sequence {
    pub(crate) fn is_weighted(&self) -> bool {
        self.weights.iter().any(|weight| *weight != 1.0)
    }
}

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tokens {
    /// One sequence, or one for each chunk.
    pub(crate) sequences: Vec<Sequence>,
    /// The end of the prompt, if it did not fit.
    pub(crate) truncated: Option<String>,
}

/// How a prompt is fitted to the length of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Its end is left out.
    Truncate,
    /// It is divided into chunks.
    Chunks,
    /// It is divided into chunks, if possible between its parts, as in ComfyUI.
    ChunksOfWholeSegments,
}

impl Tokenizer {
    /// Converts a prompt to sequences of exactly `length` ids.
    pub(crate) fn encode(&self, prompt: &[Segment], length: usize, fit: Fit) -> Result<Tokens> {
        let room = self.room(length);
        let (mut sequences, mut chunk) = (Vec::new(), Vec::new());
        for (index, segment) in prompt.iter().enumerate() {
            let words = self.words(&segment.text)?;
            let moves = fit == Fit::ChunksOfWholeSegments
                && words.len() < LONG_SEGMENT
                && !chunk.is_empty()
                && chunk.len() + words.len() > room;
            if moves || (segment.starts_chunk && fit != Fit::Truncate) {
                sequences.push(self.sequence(&std::mem::take(&mut chunk), length));
            }
            for (id, start) in words {
                if chunk.len() >= room && fit == Fit::Truncate {
                    let later = prompt.iter().skip(index + 1).map(|segment| segment.text.as_str());
                    let truncated = segment.text.get(start..).into_iter().chain(later).collect();
                    return Ok(Tokens { sequences: vec![self.sequence(&chunk, length)], truncated: Some(truncated) });
                }
                if chunk.len() >= room {
                    sequences.push(self.sequence(&std::mem::take(&mut chunk), length));
                }
                chunk.push((id, segment.weight));
            }
        }
        if !chunk.is_empty() || sequences.is_empty() {
            sequences.push(self.sequence(&chunk, length));
        }
        Ok(Tokens { sequences, truncated: None })
    }
}
