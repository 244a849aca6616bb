//! Group normalization of images, fused with the SiLU that follows it.

use candle_core::{Result, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use super::activation::Activation;
use super::implementation::Ops;
use super::math;
use super::view::{with_rows, with_values};
use crate::weights::Scope;

/// The number of pixels that one task processes.
const PIXELS: usize = 1024;

/// A group normalization with a weight and a bias per channel.
#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    /// `[channels]`
    weight: Tensor,
    /// `[channels]`
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn load(scope: &Scope<'_>, groups: usize, channels: usize, eps: f64) -> crate::error::Result<Self> {
        Ok(Self { weight: scope.tensor("weight", &[channels])?, bias: scope.tensor("bias", &[channels])?, groups, eps })
    }
}

impl Ops {
    /// Normalizes `[height, width, channels]`, then applies SiLU if `silu` is true.
    pub(crate) fn group_norm(self, x: &Tensor, norm: &GroupNorm, silu: bool) -> Result<Tensor> {
        match self {
            Self::Reference => {
                let (height, width, channels) = x.dims3()?;
                // [height·width, groups, channels of a group] -> [groups, values of a group]
                let grouped = x.contiguous()?.reshape((height * width, norm.groups, channels / norm.groups))?;
                let grouped = grouped.transpose(0, 1)?.flatten_from(1)?;
                let centered = grouped.broadcast_sub(&grouped.mean_keepdim(1)?)?;
                let variance = centered.sqr()?.mean_keepdim(1)?;
                let y = centered.broadcast_div(&(variance + norm.eps)?.sqrt()?)?;
                let y = y.reshape((norm.groups, height * width, channels / norm.groups))?.transpose(0, 1)?;
                let y = y.contiguous()?.reshape((height, width, channels))?;
                let y = y.broadcast_mul(&norm.weight)?.broadcast_add(&norm.bias)?;
                if silu { self.activate(&y, Activation::Silu) } else { Ok(y) }
            }
            Self::Fused => with_rows(x, |pixels| {
                with_values(&norm.weight, |weight| {
                    with_values(&norm.bias, |bias| {
                        let (scale, shift) = affine(pixels.data, weight, bias, norm.groups, norm.eps);
                        Tensor::from_vec(apply(pixels.data, &scale, &shift, silu), x.shape(), x.device())
                    })
                })
            }),
        }
    }
}

/// Returns the scale and the shift of each channel that together normalize it.
fn affine(pixels: &[f32], weight: &[f32], bias: &[f32], groups: usize, eps: f64) -> (Vec<f32>, Vec<f32>) {
    let channels = weight.len();
    let arch = Arch::new();
    let partial: Vec<(Vec<f32>, Vec<f32>)> = pixels
        .par_chunks(PIXELS * channels)
        .map(|chunk| {
            let mut sums = vec![0f32; channels];
            let mut squares = vec![0f32; channels];
            arch.dispatch(|| {
                for pixel in chunk.chunks_exact(channels) {
                    for ((value, sum), square) in pixel.iter().zip(&mut sums).zip(&mut squares) {
                        *sum += value;
                        *square += value * value;
                    }
                }
            });
            (sums, squares)
        })
        .collect();
    let mut sums = vec![(0f64, 0f64); groups];
    let group = channels / groups;
    for (chunk_sums, chunk_squares) in &partial {
        for ((total, sum), square) in
            sums.iter_mut().zip(chunk_sums.chunks_exact(group)).zip(chunk_squares.chunks_exact(group))
        {
            total.0 += sum.iter().map(|v| f64::from(*v)).sum::<f64>();
            total.1 += square.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
    }
    let count = (pixels.len() / groups) as f64;
    let mut scale = Vec::with_capacity(channels);
    let mut shift = Vec::with_capacity(channels);
    for (channel, (weight, bias)) in weight.iter().zip(bias).enumerate() {
        let (sum, square) = sums.get(channel / group).copied().unwrap_or_default();
        let mean = sum / count;
        let variance = (square / count - mean * mean).max(0.0);
        let factor = f64::from(*weight) / (variance + eps).sqrt();
        scale.push(factor as f32);
        shift.push((f64::from(*bias) - mean * factor) as f32);
    }
    (scale, shift)
}

fn apply(pixels: &[f32], scale: &[f32], shift: &[f32], silu: bool) -> Vec<f32> {
    let channels = scale.len();
    let arch = Arch::new();
    let mut out = vec![0f32; pixels.len()];
    out.par_chunks_mut(PIXELS * channels).zip(pixels.par_chunks(PIXELS * channels)).for_each(|(out, pixels)| {
        arch.dispatch(|| {
            for (out, pixel) in out.chunks_exact_mut(channels).zip(pixels.chunks_exact(channels)) {
                for (((out, value), scale), shift) in out.iter_mut().zip(pixel).zip(scale).zip(shift) {
                    let y = value * scale + shift;
                    *out = if silu { math::swish(y, 1.0) } else { y };
                }
            }
        });
    });
    out
}
