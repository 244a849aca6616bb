//! Layer normalization and root mean square normalization.

use super::{Call, spread};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// Computes `normalized(x) * (base + scale) + shift` for each row of `scale.len()` values.
pub(crate) fn layer_norm(gpu: &Gpu, x: &Tensor, eps: f64, base: f32, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    norm(gpu, "layer", x, eps, base, scale, shift)
}

/// Computes `x / √(mean(x²) + eps) * weight` for each group of `weight.len()` values.
pub(crate) fn rms_norm(gpu: &Gpu, x: &Tensor, eps: f64, weight: &Tensor) -> Result<Tensor> {
    norm(gpu, "rms", x, eps, 0.0, weight, weight)
}

fn norm(
    gpu: &Gpu,
    kind: &'static str,
    x: &Tensor,
    eps: f64,
    base: f32,
    scale: &Tensor,
    shift: &Tensor,
) -> Result<Tensor> {
    let width = scale.len();
    let rows = x.len().checked_div(width).unwrap_or(0);
    // The heads of the denoiser have 64 values.
    let threads: usize = if width <= 128 { 32 } else { 128 };
    let [x_view, scale, shift] = [x.view(gpu)?, scale.view(gpu)?, shift.view(gpu)?];
    let out = gpu.buffer(x.len())?;
    let source = || {
        let (mean, shift) = match kind {
            "layer" => ("total(thread, mean) / f32(p.width)", "shift[p.shift + i]"),
            _ => ("0.0", "0.0"),
        };
        let template = include_str!("norm.wgsl").replace("$THREADS", &format!("{threads}u"));
        template.replace("$MEAN", mean).replace("$SHIFT", shift)
    };
    gpu.call(&Call {
        name: format!("{kind} norm {threads}"),
        source: &source,
        inputs: &[(&x_view).into(), (&scale).into(), (&shift).into()],
        output: &out.buffer,
        parameters: &[rows as u32, width as u32, (eps as f32).to_bits(), base.to_bits()],
        workgroups: spread(rows as u64),
        operations: 8 * x.len() as u64,
    })?;
    Tensor::on_gpu(out, x.shape())
}
