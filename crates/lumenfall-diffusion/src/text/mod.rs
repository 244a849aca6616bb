//! From a prompt to what the denoiser is conditioned on.

mod clip;
mod conditioning;
mod t5;
mod tokenizer;

use candle_core::Tensor;

use crate::error::Result;
use crate::weights::Scope;

pub use conditioning::WithoutT5;
pub(crate) use conditioning::{Conditioning, TextEncoders};

/// Looks up the embeddings of `ids`, reading just their rows from the file: `[tokens, width]`.
fn embed(table: &Scope<'_>, ids: &[u32], width: usize) -> Result<Tensor> {
    let mut values = Vec::with_capacity(ids.len() * width);
    for id in ids {
        values.extend(table.rows("weight", width, *id as usize, 1)?);
    }
    Ok(Tensor::from_vec(values, (ids.len(), width), table.device())?)
}
