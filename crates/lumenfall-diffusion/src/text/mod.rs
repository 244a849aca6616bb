//! Tokenizers and text encoders: from a prompt to the denoiser's conditioning.

mod encoders;
mod recent;
mod tokenizer;
mod vocabulary;

pub(crate) use encoders::TextEncoders;
pub use encoders::WithoutT5;
pub(crate) use tokenizer::{CLIP_SPECIALS, Tokenizer};
pub(crate) use vocabulary::clip_vocabulary;
