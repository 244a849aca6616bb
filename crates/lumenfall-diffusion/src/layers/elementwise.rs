//! Sums, products and activation functions of tensors. They reuse the memory of their first argument if nothing shares it.

use lumenfall_kernels::{self as kernels, Activation};

use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::tensor::Tensor;

/// Computes `x + gate * y`. `x` and `y` are `[tokens, width]`, `gate` is `[width]`.
pub(crate) fn gated_residual(x: Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let width = gate.len();
    if x.width() != width {
        return Err(Error::Compute(format!("a gate of {width} values for rows of {}", x.width())));
    }
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y, gate]) {
        return gpu::kernels::gated_residual(gpu, &x, y, gate);
    }
    change(x, |values| kernels::gated_residual(values, y.values(), gate.values()))
}

/// Computes `x + y`.
pub(crate) fn add(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::add(gpu, &x, y);
    }
    change(x, |values| kernels::add(values, y.values()))
}

/// Computes `x - y`.
pub(crate) fn subtract(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::subtract(gpu, &x, y);
    }
    change(x, |values| kernels::subtract(values, y.values()))
}

/// Computes the elementwise product `x * y`.
pub(crate) fn multiply(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::multiply(gpu, &x, y);
    }
    change(x, |values| kernels::multiply(values, y.values()))
}

/// Applies an activation function to every value.
pub(crate) fn activate(x: Tensor, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "gpu")]
    if let Some(gpu) = x.gpu() {
        return gpu::kernels::activate(gpu, &x, activation);
    }
    let width = x.width();
    change(x, |values| kernels::bias_activation(values, width, None, Some(activation)))
}

fn same_shape(x: &Tensor, y: &Tensor) -> Result<()> {
    if x.shape() != y.shape() {
        return Err(Error::Compute(format!("the shapes {:?} and {:?} differ", x.shape(), y.shape())));
    }
    Ok(())
}

/// Changes the values of a tensor in memory.
fn change(x: Tensor, compute: impl FnOnce(&mut [f32])) -> Result<Tensor> {
    let shape = x.shape().to_vec();
    let mut values = x.into_values();
    compute(&mut values);
    Tensor::new(values, &shape)
}
