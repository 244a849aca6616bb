//! Linear layers.

use lumenfall_kernels::{self as kernels, Activation, Matrix, Values, bias_activation};

use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{self, GpuWeight};
use crate::lora::Adapters;
#[cfg(feature = "gpu")]
use crate::placement::Target;
use crate::tensor::Tensor;
use crate::weights::{Scope, StoredRows};

/// A linear layer. Its weight stays in the format of its file.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `[out, in]`
    weight: Weight,
    inputs: usize,
    outputs: usize,
    /// `[out]`
    bias: Option<Tensor>,
    adapters: Adapters,
}

/// Where the weight of a layer is.
#[derive(Clone, Debug)]
enum Weight {
    Values(Values),
    File(StoredRows),
    #[cfg(feature = "gpu")]
    Gpu(GpuWeight),
}

impl Weight {
    /// Reads `weight` in `scope`, if it does not stay in its file.
    fn load(scope: &Scope<'_>, shape: [usize; 2]) -> Result<Self> {
        Ok(match scope.stored_rows("weight", &shape)? {
            Some(rows) => Self::File(rows),
            None => Self::Values(scope.values("weight", &shape)?),
        })
    }
}

impl Linear {
    pub(crate) fn new(weight: Values, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Self {
        Self::with(Weight::Values(weight), inputs, outputs, bias)
    }

    fn with(weight: Weight, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Self {
        Self { weight, inputs, outputs, bias, adapters: Adapters::default() }
    }

    /// Moves the weight to where the layers of `scope` compute.
    pub(crate) fn moved_to(self, scope: &Scope<'_>) -> Result<Self> {
        match (scope.target(), self.weight) {
            #[cfg(feature = "gpu")]
            (Target::Gpu(gpu), Weight::Values(values)) => {
                Ok(Self { weight: Weight::Gpu(GpuWeight::new(&gpu, &values, self.inputs)?), ..self })
            }
            (_, weight) => Ok(Self { weight, ..self }),
        }
    }

    /// Adds the LoRAs' changes of the layer that `scope` contains.
    pub(crate) fn adapted(mut self, scope: &Scope<'_>) -> Result<Self> {
        let adapters = scope.adapters();
        adapters.announce();
        self.adapters = match &mut self.weight {
            Weight::Values(weight) if !scope.reads_headers_only() => adapters.attach(weight, &mut self.bias)?,
            _ => adapters,
        };
        Ok(self)
    }

    /// Reads `weight` and `bias` in `scope`.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = Weight::load(scope, [outputs, inputs])?;
        let bias = scope.tensor("bias", &[outputs])?;
        Self::with(weight, inputs, outputs, Some(bias)).adapted(scope)?.moved_to(scope)
    }

    /// Reads `weight` in `scope`.
    pub(crate) fn load_without_bias(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = Weight::load(scope, [outputs, inputs])?;
        Self::with(weight, inputs, outputs, None).adapted(scope)?.moved_to(scope)
    }

    /// Returns the identity with the LoRAs' changes in `scope`, if there are any.
    pub(crate) fn adapted_identity(scope: &Scope<'_>, width: usize) -> Result<Option<Self>> {
        if scope.adapters().is_empty() {
            return Ok(None);
        }
        let identity = (0..width * width).map(|index| if index / width == index % width { 1.0 } else { 0.0 });
        Self::new(Values::F32(identity.collect()), width, width, None).adapted(scope)?.moved_to(scope).map(Some)
    }

    /// Returns whether requests change the layer.
    #[cfg(test)]
    pub(crate) fn has_adapters(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// Computes `x·Wᵀ + b`: `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, None)
    }

    /// Computes `activation(x·Wᵀ + b)`: `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward_activated(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        self.forward_with(x, Some(activation))
    }

    fn forward_with(&self, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let [_, inputs] = x.dims()?;
        if self.inputs != inputs {
            return Err(Error::Compute(format!("a linear layer of {} inputs received {inputs} inputs", self.inputs)));
        }
        match &self.weight {
            Weight::Values(weight) => {
                let multiply = |x: Matrix<'_>, out: &mut [f32]| {
                    kernels::linear(out, x, kernels::Weight::Values(weight), self.outputs);
                };
                self.forward_on_cpu(x, activation, |x, out| {
                    match self.adapters.are_active() {
                        true => self.adapters.forward(x, out, multiply),
                        false => multiply(x, out),
                    }
                    Ok(())
                })
            }
            Weight::File(rows) => self.forward_on_cpu(x, activation, |x, out| rows.multiply(out, x, self.outputs)),
            #[cfg(feature = "gpu")]
            Weight::Gpu(weight) => self.forward_on_gpu(weight, x, activation),
        }
    }

    /// `multiply` writes the product of the inputs and the weight.
    fn forward_on_cpu(
        &self,
        x: &Tensor,
        activation: Option<Activation>,
        multiply: impl FnOnce(Matrix<'_>, &mut [f32]) -> Result<()>,
    ) -> Result<Tensor> {
        let x = &x.on_cpu()?;
        let [tokens, inputs] = x.dims()?;
        let mut out = vec![0f32; tokens * self.outputs];
        multiply(Matrix::row_major(x.values(), tokens, inputs, inputs), &mut out)?;
        bias_activation(&mut out, self.outputs, self.bias.as_ref().map(Tensor::values), activation);
        Tensor::new(out, &[tokens, self.outputs])
    }

    #[cfg(feature = "gpu")]
    fn forward_on_gpu(&self, weight: &GpuWeight, x: &Tensor, activation: Option<Activation>) -> Result<Tensor> {
        let (gpu, bias) = (weight.gpu(), self.bias.as_ref());
        if !self.adapters.are_active() {
            return gpu::kernels::linear(gpu, x, weight, self.outputs, bias, activation);
        }
        let multiply = |x: &Tensor| gpu::kernels::linear(gpu, x, weight, self.outputs, None, None);
        let out = self.adapters.forward_on_gpu(gpu, x, self.outputs, multiply)?;
        match (bias, activation) {
            (Some(bias), _) => gpu::kernels::shift_rows(gpu, &out, bias, activation),
            (None, Some(activation)) => gpu::kernels::activate(gpu, &out, activation),
            (None, None) => Ok(out),
        }
    }
}
