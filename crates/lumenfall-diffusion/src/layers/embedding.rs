//! Token embeddings.

use crate::error::Result;
use crate::tensor::Tensor;
use crate::weights::Scope;

/// Returns the embeddings of `ids`: `[tokens, width]`. It reads only their rows of the table.
pub(crate) fn embed(table: &Scope<'_>, ids: &[u32], width: usize) -> Result<Tensor> {
    let mut values = Vec::with_capacity(ids.len() * width);
    for id in ids {
        values.extend(table.rows("weight", width, *id as usize, 1)?);
    }
    Tensor::new(values, &[ids.len(), width])
}
