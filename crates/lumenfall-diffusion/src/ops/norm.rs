//! Normalization over the last dimension.

use candle_core::{D, Result, Tensor};
use pulp::Arch;
use rayon::prelude::*;

use super::activation::CHUNK;
use super::implementation::Ops;
use super::math;
use super::view::{Rows, with_rows, with_values};

impl Ops {
    /// Computes `layer_norm(x) * (1 + scale) + shift`. `x` is `[tokens, width]`, `shift` and `scale` are `[width]`.
    pub(crate) fn norm_modulate(self, x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Reference => normalized(x, eps)?.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift),
            Self::Fused => {
                with_values(scale, |scale| with_values(shift, |shift| fused_layer_norm(x, eps, 1.0, scale, shift)))
            }
        }
    }

    /// Computes `layer_norm(x) * weight + bias`. `x` is `[tokens, width]`, `weight` and `bias` are `[width]`.
    pub(crate) fn layer_norm(self, x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
        match self {
            Self::Reference => normalized(x, eps)?.broadcast_mul(weight)?.broadcast_add(bias),
            Self::Fused => {
                with_values(weight, |weight| with_values(bias, |bias| fused_layer_norm(x, eps, 0.0, weight, bias)))
            }
        }
    }

    /// Computes `x / √(mean(x²) + eps) * weight` over groups of `weight`'s length: the whole row in T5, an attention head in
    /// MMDiT.
    pub(crate) fn rms_norm(self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        let group = weight.elem_count();
        match self {
            Self::Reference => {
                let (tokens, width) = x.dims2()?;
                let heads = x.contiguous()?.reshape((tokens, width / group, group))?;
                let mean = heads.sqr()?.mean_keepdim(D::Minus1)?;
                heads.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)?.reshape((tokens, width))
            }
            Self::Fused => with_values(weight, |weight| {
                map_rows(x, |from, to| {
                    for (from, to) in from.chunks_exact(group).zip(to.chunks_exact_mut(group)) {
                        let mean = math::sum(from, |v| v * v) / group as f32;
                        let inverse = 1.0 / (mean + eps as f32).sqrt();
                        to.iter_mut().zip(from).zip(weight).for_each(|((to, v), w)| *to = v * inverse * w);
                    }
                })
            }),
        }
    }
}

fn normalized(x: &Tensor, eps: f64) -> Result<Tensor> {
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centered.sqr()?.mean_keepdim(D::Minus1)?;
    centered.broadcast_div(&(variance + eps)?.sqrt()?)
}

/// Computes `layer_norm(x) * (base + scale) + shift`.
fn fused_layer_norm(x: &Tensor, eps: f64, base: f32, scale: &[f32], shift: &[f32]) -> Result<Tensor> {
    map_rows(x, |from, to| {
        let count = from.len() as f32;
        let mean = math::sum(from, |v| v) / count;
        let variance = math::sum(from, |v| (v - mean) * (v - mean)) / count;
        let inverse = 1.0 / (variance + eps as f32).sqrt();
        for (((to, from), scale), shift) in to.iter_mut().zip(from).zip(scale).zip(shift) {
            *to = (from - mean) * inverse * (base + scale) + shift;
        }
    })
}

/// Maps each row of `x` to a row of the result, in parallel.
fn map_rows(x: &Tensor, map: impl Fn(&[f32], &mut [f32]) + Sync) -> Result<Tensor> {
    with_rows(x, |from: Rows<'_>| {
        let mut out = vec![0f32; from.rows * from.width];
        let rows = (CHUNK / from.width.max(1)).max(1);
        let arch = Arch::new();
        out.par_chunks_mut(rows * from.width).enumerate().for_each(|(chunk, out)| {
            arch.dispatch(|| {
                for (row, to) in out.chunks_exact_mut(from.width).enumerate() {
                    map(from.row(chunk * rows + row), to);
                }
            });
        });
        Tensor::from_vec(out, x.shape(), x.device())
    })
}
