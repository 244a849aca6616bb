//! Sums, products and activation functions of tensors. They reuse the memory of their first argument if nothing shares it.

use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu;
use crate::kernels::{self, Activation};
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
    let gate = gate.values();
    zip(
        x,
        y,
        #[inline(always)]
        |x, y| {
            for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                x.iter_mut().zip(y).zip(gate).for_each(|((x, y), gate)| *x += y * gate);
            }
        },
    )
}

/// Computes `x + y`.
pub(crate) fn add(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::add(gpu, &x, y);
    }
    zip(
        x,
        y,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
    )
}

/// Computes `x - y`.
pub(crate) fn subtract(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::subtract(gpu, &x, y);
    }
    zip(
        x,
        y,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x -= y),
    )
}

/// Computes the elementwise product `x * y`.
pub(crate) fn multiply(x: Tensor, y: &Tensor) -> Result<Tensor> {
    same_shape(&x, y)?;
    #[cfg(feature = "gpu")]
    if let Some(gpu) = gpu::of([&x, y]) {
        return gpu::kernels::multiply(gpu, &x, y);
    }
    zip(
        x,
        y,
        #[inline(always)]
        |x, y| x.iter_mut().zip(y).for_each(|(x, y)| *x *= y),
    )
}

/// Applies an activation function to every value.
pub(crate) fn activate(x: Tensor, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "gpu")]
    if let Some(gpu) = x.gpu() {
        return gpu::kernels::activate(gpu, &x, activation);
    }
    let (shape, width) = (x.shape().to_vec(), x.width());
    let mut values = x.into_values();
    kernels::bias_activation(&mut values, width, None, Some(activation));
    Tensor::new(values, &shape)
}

fn same_shape(x: &Tensor, y: &Tensor) -> Result<()> {
    if x.shape() != y.shape() {
        return Err(Error::Compute(format!("the shapes {:?} and {:?} differ", x.shape(), y.shape())));
    }
    Ok(())
}

fn zip(x: Tensor, y: &Tensor, combine: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<Tensor> {
    let (shape, width) = (x.shape().to_vec(), x.width());
    let mut values = x.into_values();
    kernels::zip(&mut values, y.values(), width, combine);
    Tensor::new(values, &shape)
}
