//! Group normalization of images.

use super::{Call, spread};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// The number of values that one workgroup reads for the statistics.
const CHUNK: usize = 16 * 1024;

/// Returns how to normalize the groups of channels of `[height, width, channels]`: all scales and then all shifts, as
/// `[2, channels]`.
pub(crate) fn group_affine(
    gpu: &Gpu,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    let channels = weight.len();
    let size = channels.checked_div(groups).unwrap_or(0);
    let chunk = CHUNK.checked_div(size).unwrap_or(1).max(1);
    let pixels = |band: &Tensor| band.len().checked_div(channels).unwrap_or(0);
    let all: usize = x.bands().iter().map(|band| pixels(band).div_ceil(chunk)).sum();
    let statistics = gpu.buffer(groups * all * 3)?;
    let mut first = 0;
    for band in x.bands() {
        let pixels = pixels(band);
        let chunks = pixels.div_ceil(chunk);
        gpu.call(&Call {
            name: "group statistics".into(),
            source: &|| include_str!("group_statistics.wgsl").into(),
            inputs: &[(&band.view(gpu)?).into()],
            output: &statistics.buffer,
            parameters: &[pixels, channels, size, chunk, chunks, groups * chunks, first, all].map(|value| value as u32),
            workgroups: spread((groups * chunks) as u64),
            operations: 4 * band.len() as u64,
        })?;
        first += chunks;
    }
    let affine = gpu.buffer(2 * channels)?;
    let mut parameters = [channels, size, all].map(|value| value as u32).to_vec();
    parameters.push((eps as f32).to_bits());
    gpu.call(&Call {
        name: "group affine".into(),
        source: &|| include_str!("group_affine.wgsl").into(),
        inputs: &[(&statistics).into(), (&weight.view(gpu)?).into(), (&bias.view(gpu)?).into()],
        output: &affine.buffer,
        parameters: &parameters,
        workgroups: [groups as u64, 1],
        operations: (groups * all) as u64,
    })?;
    Tensor::on_gpu(affine, &[2, channels])
}
