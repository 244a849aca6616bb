//! Group normalization of images.

use super::elementwise::affine;
use super::{Call, spread};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// The number of values that one workgroup reads for the statistics.
const CHUNK: usize = 16 * 1024;

/// Normalizes the groups of channels of `[height, width, channels]`, then applies SiLU if `silu` is true.
pub(crate) fn group_norm(
    gpu: &Gpu,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let channels = weight.len();
    let pixels = x.len().checked_div(channels).unwrap_or(0);
    let size = channels.checked_div(groups).unwrap_or(0);
    let chunk = CHUNK.checked_div(size).unwrap_or(1).clamp(1, pixels.max(1));
    let chunks = pixels.div_ceil(chunk);
    let [x_view, weight, bias] = [x.view(gpu)?, weight.view(gpu)?, bias.view(gpu)?];
    let statistics = gpu.buffer(groups * chunks * 2)?;
    gpu.call(&Call {
        name: "group statistics".into(),
        source: &|| include_str!("group_statistics.wgsl").into(),
        inputs: &[(&x_view).into()],
        output: &statistics.buffer,
        parameters: &[pixels, channels, size, chunk, chunks, groups * chunks].map(|value| value as u32),
        workgroups: spread((groups * chunks) as u64),
        operations: 4 * x.len() as u64,
    })?;
    let both = gpu.buffer(2 * channels)?;
    let mut parameters = [pixels, channels, size, chunk, chunks].map(|value| value as u32).to_vec();
    parameters.push((eps as f32).to_bits());
    gpu.call(&Call {
        name: "group affine".into(),
        source: &|| include_str!("group_affine.wgsl").into(),
        inputs: &[(&statistics).into(), (&weight).into(), (&bias).into()],
        output: &both.buffer,
        parameters: &parameters,
        workgroups: [groups as u64, 1],
        operations: (groups * chunks) as u64,
    })?;
    affine(gpu, x, &Tensor::on_gpu(both, &[2, channels])?, silu)
}
