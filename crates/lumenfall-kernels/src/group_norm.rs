//! Group normalization of images, with the SiLU that follows it.

use rayon::prelude::*;

use super::math;

/// The number of pixels that one task processes.
const PIXELS: usize = 1024;

/// The scale and the shift of each channel that together normalize an image.
#[derive(Clone, Debug)]
pub struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Whether SiLU follows.
    silu: bool,
}

impl Affine {
    /// Normalizes the channels of a pixel.
    #[inline(always)]
    pub(super) fn apply_to_pixel(&self, pixel: &[f32], out: &mut [f32]) {
        let channels =
            pixel.iter().zip(&self.scale).zip(&self.shift).map(|((value, scale), shift)| value * scale + shift);
        if self.silu {
            out.iter_mut().zip(channels).for_each(|(out, value)| *out = math::swish(value, 1.0));
        } else {
            out.iter_mut().zip(channels).for_each(|(out, value)| *out = value);
        }
    }
}

/// Computes how to normalize each channel with the mean and the variance of its group.
pub fn group_statistics(pixels: &[f32], weight: &[f32], bias: &[f32], groups: usize, eps: f64, silu: bool) -> Affine {
    let channels = weight.len();
    let partial: Vec<(Vec<f32>, Vec<f32>)> = pixels
        .par_chunks(PIXELS * channels)
        .map(|chunk| {
            let mut sums = vec![0f32; channels];
            let mut squares = vec![0f32; channels];
            vectorized!({
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
    Affine { scale, shift, silu }
}

/// Normalizes an image.
pub fn apply(pixels: &[f32], norm: &Affine) -> Vec<f32> {
    let channels = norm.scale.len();
    let mut out = vec![0f32; pixels.len()];
    out.par_chunks_mut(PIXELS * channels).zip(pixels.par_chunks(PIXELS * channels)).for_each(|(out, pixels)| {
        vectorized!({
            for (out, pixel) in out.chunks_exact_mut(channels).zip(pixels.chunks_exact(channels)) {
                norm.apply_to_pixel(pixel, out);
            }
        });
    });
    out
}
