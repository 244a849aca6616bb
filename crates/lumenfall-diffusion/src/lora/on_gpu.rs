//! The changes of a layer by LoRAs on a GPU, as [`Adapters::forward`] computes them on the CPU.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use lumenfall_kernels::Values;

use super::adapter::{Adapters, Change};
use super::delta::{Delta, Kronecker, LowRank};
use super::magnitude::Axis;
use crate::error::Result;
use crate::gpu::{Gpu, GpuWeight, kernels};
use crate::tensor::Tensor;

/// The copy of a change on the GPU that has used it last, with the last strength.
#[derive(Debug, Default)]
pub(super) struct Copy(Mutex<Option<Arc<GpuChange>>>);

/// A change of a layer on a GPU.
#[derive(Debug)]
struct GpuChange {
    gpu: Gpu,
    strength: f32,
    delta: Option<GpuDelta>,
    /// The factor of each output of the difference.
    factors: Tensor,
    /// What DoRA multiplies the outputs or the inputs of the layer with, to add the result.
    own: Option<(Axis, Tensor)>,
    /// The factor of each input of the difference.
    inputs: Option<Tensor>,
    /// The difference of the bias.
    bias: Option<Tensor>,
}

/// A difference without its scale.
#[derive(Debug)]
enum GpuDelta {
    LowRank {
        down: GpuWeight,
        up: GpuWeight,
        rank: usize,
    },
    Kronecker {
        left: GpuWeight,
        left_shape: [usize; 2],
        right: GpuWeight,
        right_shape: [usize; 2],
        /// The rows of the product that belong to the layer.
        rows: Vec<Range<usize>>,
    },
}

impl Adapters {
    /// Computes the outputs of the adapted layer for `[tokens, in]`. `multiply` computes those of the layer without its bias.
    pub(crate) fn forward_on_gpu(
        &self,
        gpu: &Gpu,
        x: &Tensor,
        outputs: usize,
        multiply: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let own = multiply(x)?;
        let mut out = own.clone();
        for (strength, change) in self.0.iter().filter_map(|adapter| adapter.change()) {
            let change = change.copy.get(gpu, strength, change, outputs)?;
            match &change.own {
                Some((Axis::Rows, factors)) => out = kernels::gated_residual(gpu, &out, &own, factors)?,
                Some((Axis::Columns, factors)) => {
                    out = kernels::add(gpu, &out, &multiply(&kernels::scale_rows(gpu, x, factors)?)?)?;
                }
                None => {}
            }
            if let Some(delta) = &change.delta {
                let scaled = change.inputs.as_ref().map(|factors| kernels::scale_rows(gpu, x, factors)).transpose()?;
                let product = delta.multiply(gpu, scaled.as_ref().unwrap_or(x), outputs)?;
                out = kernels::gated_residual(gpu, &out, &product, &change.factors)?;
            }
            if let Some(bias) = &change.bias {
                out = kernels::shift_rows(gpu, &out, bias, None)?;
            }
        }
        Ok(out)
    }
}

impl Copy {
    /// Returns the change on a GPU with a strength, after copying it if necessary.
    fn get(&self, gpu: &Gpu, strength: f32, change: &Change, outputs: usize) -> Result<Arc<GpuChange>> {
        let mut copy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = copy.as_ref().filter(|copy| copy.gpu == *gpu && copy.strength == strength) {
            return Ok(Arc::clone(copy));
        }
        let new = Arc::new(GpuChange::new(gpu, strength, change, outputs)?);
        *copy = Some(Arc::clone(&new));
        Ok(new)
    }
}

impl GpuChange {
    fn new(gpu: &Gpu, strength: f32, change: &Change, outputs: usize) -> Result<Self> {
        let row = |values: Vec<f32>| {
            let count = values.len();
            Tensor::new(values, &[count])
        };
        let scale = match &change.delta {
            Some(Delta::LowRank(delta)) => strength * delta.scale,
            Some(Delta::Kronecker(delta)) => strength * delta.scale,
            None => strength,
        };
        let own = |factors: &[f32]| row(factors.iter().map(|factor| strength * (factor - 1.0)).collect());
        let (own, factors, inputs) = match &change.factors {
            Some((Axis::Rows, by_row)) => {
                let factors = by_row.iter().map(|factor| scale * factor).collect();
                (Some((Axis::Rows, own(by_row)?)), factors, None)
            }
            Some((Axis::Columns, by_column)) => {
                (Some((Axis::Columns, own(by_column)?)), vec![scale; outputs], Some(row(by_column.clone())?))
            }
            None => (None, vec![scale; outputs], None),
        };
        let bias = change.bias.as_ref().map(|bias| row(bias.iter().map(|value| strength * value).collect()));
        Ok(Self {
            gpu: gpu.clone(),
            strength,
            delta: change.delta.as_ref().map(|delta| GpuDelta::new(gpu, delta)).transpose()?,
            factors: row(factors)?,
            own,
            inputs,
            bias: bias.transpose()?,
        })
    }
}

impl GpuDelta {
    fn new(gpu: &Gpu, delta: &Delta) -> Result<Self> {
        Ok(match delta {
            Delta::LowRank(LowRank { down, up, rank, .. }) => Self::LowRank {
                down: GpuWeight::new(gpu, down, down.len().checked_div(*rank).unwrap_or(0))?,
                up: GpuWeight::new(gpu, up, *rank)?,
                rank: *rank,
            },
            Delta::Kronecker(Kronecker { left, left_columns, right, right_rows, right_columns, rows, .. }) => {
                let weight = |values: &[f32], columns| GpuWeight::new(gpu, &Values::F32(values.to_vec()), columns);
                Self::Kronecker {
                    left: weight(left, *left_columns)?,
                    left_shape: [left.len().checked_div(*left_columns).unwrap_or(0), *left_columns],
                    right: weight(right, *right_columns)?,
                    right_shape: [*right_rows, *right_columns],
                    rows: rows.clone(),
                }
            }
        })
    }

    /// Computes `x · deltaᵀ`: `[tokens, in]` to `[tokens, out]`.
    fn multiply(&self, gpu: &Gpu, x: &Tensor, outputs: usize) -> Result<Tensor> {
        let [tokens, _] = x.dims()?;
        let multiply = |x: &Tensor, weight, rows| kernels::linear(gpu, x, weight, rows, None, None);
        match self {
            Self::LowRank { down, up, rank } => multiply(&multiply(x, down, *rank)?, up, outputs),
            Self::Kronecker { left, left_shape, right, right_shape, rows } => {
                let ([left_rows, left_columns], [right_rows, right_columns]) = (*left_shape, *right_shape);
                // Row `(i, k)` of the product is the sum over j and l of left[i, j] * right[k, l] * x[j, l].
                let sections = x.reshape(&[tokens * left_columns, right_columns])?;
                let hidden = multiply(&sections, right, right_rows)?.reshape(&[tokens, left_columns, right_rows])?;
                let hidden = hidden.permute([0, 2, 1])?.reshape(&[tokens * right_rows, left_columns])?;
                let product = multiply(&hidden, left, left_rows)?.reshape(&[tokens, right_rows, left_rows])?;
                let product = product.permute([2, 1, 0])?.reshape(&[left_rows * right_rows, tokens])?;
                let parts = rows.iter().map(|rows| product.rows(rows.clone())).collect::<Result<Vec<_>>>()?;
                Tensor::concat(&parts.iter().collect::<Vec<_>>())?.permute([1, 0])
            }
        }
    }
}
