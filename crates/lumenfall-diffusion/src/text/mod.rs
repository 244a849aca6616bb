//! Tokenizers and text encoders: from a prompt to the denoiser's conditioning.

mod emphasis;
mod encoders;
mod options;
mod recent;
mod sequences;
mod stored;
mod tokenizer;
mod vocabulary;
mod weights;

pub(crate) use encoders::TextEncoders;
pub use encoders::WithoutT5;
pub use options::{LongPrompts, TextOptions};
pub(crate) use options::{MAX_T5_TOKENS, Reading, Texts};
#[cfg(test)]
pub(crate) use sequences::Fit;
pub use stored::PromptCache;
pub(crate) use stored::StoredPrompts;
pub(crate) use tokenizer::{CLIP_SPECIALS, Tokenizer};
pub(crate) use vocabulary::clip_vocabulary;
pub use weights::PromptWeights;
