//! Modulation: shift, scale and gate of each branch of a block, computed from the timestep and the pooled prompt.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::ops::Ops;

/// The epsilon of every norm in the denoiser.
pub(super) const NORM_EPS: f64 = 1e-6;

/// The modulation of one branch, each `[width]`.
pub(super) struct Modulation {
    pub(super) shift: Tensor,
    pub(super) scale: Tensor,
    pub(super) gate: Tensor,
}

impl Modulation {
    /// Computes `layer_norm(x) * (1 + scale) + shift`.
    pub(super) fn norm(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.norm_modulate(x, &self.shift, &self.scale, NORM_EPS)?)
    }
}

/// Splits `[N * width]` into `N` vectors `[width]`.
pub(super) fn chunks<const N: usize>(vector: &Tensor) -> Result<[Tensor; N]> {
    vector.chunk(N, 0)?.try_into().map_err(|parts: Vec<Tensor>| {
        Error::malformed(
            "transformer",
            format!("a modulation has {} parts instead of {N}; download an SD 3.5 denoiser", parts.len()),
        )
    })
}
