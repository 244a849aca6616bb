//! Sums and products of activations.

use candle_core::{Result, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::Ops;
use super::activation::CHUNK;
use super::view::with_values;

impl Ops {
    /// `x + gate·y`: `[tokens, width]` twice and `[width]`.
    pub(crate) fn gated_residual(self, x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
        match self {
            Self::Composed => x + y.broadcast_mul(gate)?,
            Self::Kernel => {
                let width = gate.elem_count();
                with_values(gate, |gate| {
                    zip(x, y, |x, y| {
                        for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                            x.iter_mut().zip(y).zip(gate).for_each(|((x, y), gate)| *x += y * gate);
                        }
                    })
                })
            }
        }
    }

    /// `x + y`, value by value.
    pub(crate) fn add(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Composed => x + y,
            Self::Kernel => zip(x, y, |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x += y)),
        }
    }

    /// `x · y`, value by value.
    pub(crate) fn multiply(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Composed => x * y,
            Self::Kernel => zip(x, y, |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x *= y)),
        }
    }
}

/// Combines two tensors of one shape, whole rows at a time.
fn zip(x: &Tensor, y: &Tensor, combine: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<Tensor> {
    if x.shape() != y.shape() {
        bail!("shapes {:?} and {:?} do not combine", x.shape(), y.shape());
    }
    let width = x.dims().last().copied().unwrap_or(1).max(1);
    let chunk = (CHUNK / width).max(1) * width;
    with_values(x, |x_values| {
        with_values(y, |y_values| {
            let mut out = x_values.to_vec();
            let arch = Arch::new();
            out.par_chunks_mut(chunk)
                .zip(y_values.par_chunks(chunk))
                .for_each(|(out, y)| arch.dispatch(|| combine(out, y)));
            Tensor::from_vec(out, x.shape(), x.device())
        })
    })
}
