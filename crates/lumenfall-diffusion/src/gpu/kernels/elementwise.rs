//! Sums, products and activation functions.

use lumenfall_kernels::Activation;

use super::{Call, activation, spread};
use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::tensor::Tensor;

/// Computes `x + gate * y`. The gate is repeated for each row.
pub(crate) fn gated_residual(gpu: &Gpu, x: &Tensor, y: &Tensor, gate: &Tensor) -> Result<Tensor> {
    combine(gpu, "x[p.x + i] + gate[p.gate + i % p.width] * y[p.y + i]", None, [x, y, gate], gate.len())
}

/// Computes `x + y`.
pub(crate) fn add(gpu: &Gpu, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    combine(gpu, "x[p.x + i] + y[p.y + i]", None, [x, y, y], x.width())
}

/// Computes `x - y`.
pub(crate) fn subtract(gpu: &Gpu, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    combine(gpu, "x[p.x + i] - y[p.y + i]", None, [x, y, y], x.width())
}

/// Computes the elementwise product `x * y`.
pub(crate) fn multiply(gpu: &Gpu, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    combine(gpu, "x[p.x + i] * y[p.y + i]", None, [x, y, y], x.width())
}

/// Multiplies each row of `x` by `row`, value by value.
pub(crate) fn scale_rows(gpu: &Gpu, x: &Tensor, row: &Tensor) -> Result<Tensor> {
    combine(gpu, "x[p.x + i] * gate[p.gate + i % p.width]", None, [x, x, row], row.len())
}

/// Adds `row` to each row of `x`, and then applies an activation function.
pub(crate) fn shift_rows(gpu: &Gpu, x: &Tensor, row: &Tensor, function: Option<Activation>) -> Result<Tensor> {
    combine(gpu, "act(x[p.x + i] + gate[p.gate + i % p.width])", function, [x, x, row], row.len())
}

/// Applies an activation function to every value.
pub(crate) fn activate(gpu: &Gpu, x: &Tensor, activation: Activation) -> Result<Tensor> {
    combine(gpu, "act(x[p.x + i])", Some(activation), [x, x, x], x.width())
}

/// Computes `scale * x + shift`, each repeated for each row, and then SiLU if `silu` is true. `affine` is `[2, width]`:
/// all scales and then all shifts. The result is one band.
pub(crate) fn affine(gpu: &Gpu, x: &Tensor, affine: &Tensor, silu: bool) -> Result<Tensor> {
    let expression = "act(y[p.y + i % p.width] * x[p.x + i] + y[p.y + p.width + i % p.width])";
    let function = silu.then_some(Activation::Silu);
    let out = gpu.buffer(x.len())?;
    let mut first = 0;
    for band in x.bands() {
        write(gpu, expression, function, [band, affine, band], x.width(), (&out, first))?;
        first += band.len();
    }
    Tensor::on_gpu(out, x.shape())
}

/// Computes a tensor with the shape and the bands of `x`.
fn combine(
    gpu: &Gpu,
    expression: &str,
    function: Option<Activation>,
    [x, y, gate]: [&Tensor; 3],
    width: usize,
) -> Result<Tensor> {
    let mut first = 0;
    let of_band = |band: &Tensor| {
        let rows = first..first + band.shape().first().unwrap_or(&1);
        first = rows.end;
        // A gate is the same for all rows.
        let part = |other: &Tensor| match x.bands().len() > 1 && other.shape() == x.shape() {
            true => other.rows(rows.clone()),
            false => Ok(other.clone()),
        };
        let out = gpu.buffer(band.len())?;
        write(gpu, expression, function, [band, &part(y)?, &part(gate)?], width, (&out, 0))?;
        Tensor::on_gpu(out, band.shape())
    };
    Tensor::in_bands(x.bands().iter().map(of_band).collect::<Result<_>>()?)
}

/// Writes one value for each value of `x`, starting at an index of the output.
fn write(
    gpu: &Gpu,
    expression: &str,
    function: Option<Activation>,
    [x, y, gate]: [&Tensor; 3],
    width: usize,
    (out, first): (&View, usize),
) -> Result<()> {
    let [x, y, gate] = [x.view(gpu)?, y.view(gpu)?, gate.view(gpu)?];
    let source = || {
        let template = include_str!("elementwise.wgsl");
        template.replace("$EXPRESSION", expression).replace("$ACT", activation(function))
    };
    gpu.call(&Call {
        name: format!("elementwise {expression} {function:?}"),
        source: &source,
        inputs: &[(&x).into(), (&y).into(), (&gate).into()],
        output: &out.buffer,
        parameters: &[first, x.len, width].map(|value| value as u32),
        workgroups: spread(x.len.div_ceil(256) as u64),
        operations: x.len as u64,
    })
}
