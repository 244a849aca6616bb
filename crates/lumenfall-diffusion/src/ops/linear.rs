//! Linear layers.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::activation::{Activation, bias_activation};
use super::gemm::{Matrix, Threads, Write, matmul};
use super::implementation::Ops;
use super::view::{with_rows, with_values};
use crate::weights::{Scope, Values};

/// The number of weights that are converted to f32 at a time: 4 MB, which stay in the cache until they are multiplied.
const PANEL: usize = 1 << 20;

/// A linear layer. Its weight stays in the format of its file.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: Values,
    inputs: usize,
    outputs: usize,
    /// `[out]`
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: Values, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Self {
        Self { weight, inputs, outputs, bias }
    }

    /// Reads `weight` and `bias` in `scope`.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> crate::error::Result<Self> {
        let layer = Self::load_without_bias(scope, inputs, outputs)?;
        Ok(Self { bias: Some(scope.tensor("bias", &[outputs])?), ..layer })
    }

    /// Reads `weight` in `scope`.
    pub(crate) fn load_without_bias(scope: &Scope<'_>, inputs: usize, outputs: usize) -> crate::error::Result<Self> {
        Ok(Self::new(scope.values("weight", &[outputs, inputs])?, inputs, outputs, None))
    }

    /// Returns the weight as f32.
    fn widened(&self) -> Result<Tensor> {
        Tensor::from_vec(self.weight.clone().into_f32(), (self.outputs, self.inputs), &Device::Cpu)
    }

    /// Computes `out = x·Wᵀ`, with the rows of `out` one after another.
    fn multiply(&self, x: Matrix<'_>, out: &mut [f32]) {
        if let Values::F32(weight) = &self.weight {
            return self.multiply_panel(x, weight, 0, out);
        }
        let rows = (PANEL / self.inputs.max(1)).clamp(1, self.outputs.max(1));
        let mut panel = vec![0f32; rows * self.inputs];
        for first in (0..self.outputs).step_by(rows) {
            let rows = rows.min(self.outputs - first);
            let (panel, _) = panel.split_at_mut(rows * self.inputs);
            let start = first * self.inputs;
            // A row contains whole blocks of a quantised format.
            let part = (rows.div_ceil(rayon::current_num_threads()) * self.inputs).max(1);
            let parts = panel.par_chunks_mut(part).enumerate();
            parts.for_each(|(i, values)| self.weight.widen(start + i * part, values));
            self.multiply_panel(x, panel, first, out);
        }
    }

    /// Computes the outputs from `first` with their rows of the weight.
    fn multiply_panel(&self, x: Matrix<'_>, panel: &[f32], first: usize, out: &mut [f32]) {
        let rows = panel.len().checked_div(self.inputs).unwrap_or(0);
        let panel = Matrix::row_major(panel, rows, self.inputs, self.inputs).transposed();
        if let Some(out) = out.get_mut(first..) {
            matmul(out, self.outputs, Write::Replace, 1.0, x, panel, Threads::All);
        }
    }
}

impl Ops {
    /// Computes `x·Wᵀ + b`: `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn linear(self, x: &Tensor, layer: &Linear) -> Result<Tensor> {
        self.linear_with(x, layer, None)
    }

    /// Computes `activation(x·Wᵀ + b)`: `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn linear_activation(self, x: &Tensor, layer: &Linear, activation: Activation) -> Result<Tensor> {
        self.linear_with(x, layer, Some(activation))
    }

    fn linear_with(self, x: &Tensor, layer: &Linear, activation: Option<Activation>) -> Result<Tensor> {
        match self {
            Self::Reference => {
                let y = x.contiguous()?.matmul(&layer.widened()?.t()?)?;
                let y = match &layer.bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                };
                activation.map_or(Ok(y.clone()), |activation| self.activate(&y, activation))
            }
            Self::Fused => match &layer.bias {
                Some(bias) => with_values(bias, |bias| fused(x, layer, Some(bias), activation)),
                None => fused(x, layer, None, activation),
            },
        }
    }
}

fn fused(x: &Tensor, layer: &Linear, bias: Option<&[f32]>, activation: Option<Activation>) -> Result<Tensor> {
    let (tokens, inputs) = x.dims2()?;
    if layer.inputs != inputs {
        candle_core::bail!("a linear layer of {} inputs received {inputs} inputs", layer.inputs);
    }
    with_rows(x, |rows| {
        let mut out = vec![0f32; tokens * layer.outputs];
        layer.multiply(Matrix::row_major(rows.data, tokens, inputs, rows.stride), &mut out);
        bias_activation(&mut out, layer.outputs, bias, activation);
        Tensor::from_vec(out, (tokens, layer.outputs), x.device())
    })
}
