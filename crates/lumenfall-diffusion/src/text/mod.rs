//! Tokenizers and text encoders: from a prompt to the denoiser's conditioning.

mod clip;
mod conditioning;
mod embedding;
mod t5;
mod tokenizer;

pub use conditioning::WithoutT5;
pub(crate) use conditioning::{Conditioning, TextEncoders};
