//! Sums and products of tensors.

use candle_core::{Result, Tensor, bail};
use pulp::Arch;
use rayon::prelude::*;

use super::activation::CHUNK;
use super::implementation::Ops;
use super::view::with_values;

impl Ops {
    /// Computes `x + gate * y`. `x` and `y` are `[tokens, width]`, `gate` is `[width]`.
    pub(crate) fn gated_residual(self, x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
        match self {
            Self::Reference => x + y.broadcast_mul(gate)?,
            Self::Fused => {
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

    /// Computes `x + y`.
    pub(crate) fn add(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Reference => x + y,
            Self::Fused => zip(x, y, |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x += y)),
        }
    }

    /// Computes the elementwise product `x * y`.
    pub(crate) fn multiply(self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Reference => x * y,
            Self::Fused => zip(x, y, |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x *= y)),
        }
    }
}

/// Combines chunks of whole rows of two tensors of the same shape, in parallel.
fn zip(x: &Tensor, y: &Tensor, combine: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<Tensor> {
    if x.shape() != y.shape() {
        bail!("the shapes {:?} and {:?} differ", x.shape(), y.shape());
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
