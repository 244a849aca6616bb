//! Linear layers.

use candle_core::{Result, Tensor};

use super::activation::{Activation, bias_activation};
use super::gemm::{Matrix, Threads, Write, matmul};
use super::implementation::Ops;
use super::view::{with_rows, with_values};
use crate::weights::Scope;

/// A linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: Tensor,
    /// `[out]`
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Reads `weight` and `bias` in `scope`.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> crate::error::Result<Self> {
        let weight = scope.tensor("weight", &[outputs, inputs])?;
        Ok(Self { weight, bias: Some(scope.tensor("bias", &[outputs])?) })
    }

    /// Reads `weight` in `scope`.
    pub(crate) fn load_without_bias(scope: &Scope<'_>, inputs: usize, outputs: usize) -> crate::error::Result<Self> {
        Ok(Self { weight: scope.tensor("weight", &[outputs, inputs])?, bias: None })
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
                let y = x.contiguous()?.matmul(&layer.weight.t()?)?;
                let y = match &layer.bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                };
                activation.map_or(Ok(y.clone()), |activation| self.activate(&y, activation))
            }
            Self::Fused => match &layer.bias {
                Some(bias) => with_values(bias, |bias| fused(x, &layer.weight, Some(bias), activation)),
                None => fused(x, &layer.weight, None, activation),
            },
        }
    }
}

fn fused(x: &Tensor, weight: &Tensor, bias: Option<&[f32]>, activation: Option<Activation>) -> Result<Tensor> {
    let (tokens, inputs) = x.dims2()?;
    let outputs = weight.dim(0)?;
    if weight.dim(1)? != inputs {
        candle_core::bail!("a linear layer of {} inputs received {inputs} inputs", weight.dim(1)?);
    }
    with_rows(x, |x_rows| {
        with_rows(weight, |weight| {
            let mut out = vec![0f32; tokens * outputs];
            let a = Matrix::row_major(x_rows.data, tokens, inputs, x_rows.stride);
            let b = Matrix::row_major(weight.data, outputs, inputs, weight.stride).transposed();
            matmul(&mut out, outputs, Write::Replace, 1.0, a, b, Threads::All);
            bias_activation(&mut out, outputs, bias, activation);
            Tensor::from_vec(out, (tokens, outputs), x.device())
        })
    })
}
