//! Plain loops in f64 that compute the same as the kernels. Tests compare both.
#![allow(clippy::indexing_slicing, reason = "the callers are tests")]

use std::hint::black_box;

use pulp::{Arch, Simd, WithSimd};

use super::{Activation, ConvShape, Image};

/// Applies an activation function.
pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
    }
}

/// Computes `x·Wᵀ` for a weight `[outputs, inputs]`.
pub fn linear(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |row: &[f32], column: &[f32]| row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(inputs).flat_map(|row| weight.chunks(inputs).map(move |column| dot(row, column))).collect()
}

/// Computes `normalized(x) * (base + scale) + shift` for each row.
pub fn layer_norm(x: &[f32], eps: f64, base: f64, scale: &[f32], shift: &[f32]) -> Vec<f64> {
    let norm = |row: &[f32]| {
        let count = row.len() as f64;
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let variance = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
        let values = row.iter().zip(scale).zip(shift).map(|((v, scale), shift)| {
            (f64::from(*v) - mean) / (variance + eps).sqrt() * (base + f64::from(*scale)) + f64::from(*shift)
        });
        values.collect::<Vec<_>>()
    };
    x.chunks(scale.len()).flat_map(norm).collect()
}

/// Computes `x / √(mean(x²) + eps) * weight` for each group of `weight`'s length.
pub fn rms_norm(x: &[f32], eps: f64, weight: &[f32]) -> Vec<f64> {
    let norm = |row: &[f32]| {
        let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / row.len() as f64;
        let values = row.iter().zip(weight).map(|(v, weight)| f64::from(*v) / (mean + eps).sqrt() * f64::from(*weight));
        values.collect::<Vec<_>>()
    };
    x.chunks(weight.len()).flat_map(norm).collect()
}

/// Normalizes each group of channels over all pixels.
pub fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], groups: usize, eps: f64, silu: bool) -> Vec<f64> {
    let channels = weight.len();
    let size = channels / groups;
    let mut out = vec![0.0; x.len()];
    for group in 0..groups {
        let indices: Vec<usize> = (0..x.len()).filter(|i| i % channels / size == group).collect();
        let count = indices.len() as f64;
        let mean = indices.iter().map(|i| f64::from(x[*i])).sum::<f64>() / count;
        let variance = indices.iter().map(|i| (f64::from(x[*i]) - mean).powi(2)).sum::<f64>() / count;
        for i in indices {
            let (weight, bias) = (f64::from(weight[i % channels]), f64::from(bias[i % channels]));
            let y = (f64::from(x[i]) - mean) / (variance + eps).sqrt() * weight + bias;
            out[i] = if silu { activate(y, Activation::Silu) } else { y };
        }
    }
    out
}

/// Computes attention with a bias for each head, query and key. The sequences are `[tokens, heads * dim]`.
pub fn attention(
    [q, k, v]: [&[f32]; 3],
    width: usize,
    heads: usize,
    scale: f64,
    bias: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let dim = width / heads;
    let (queries, keys) = (q.len() / width, k.len() / width);
    let mut out = vec![0.0; q.len()];
    for head in 0..heads {
        let value = |x: &[f32], token: usize, i: usize| f64::from(x[token * width + head * dim + i]);
        for query in 0..queries {
            let score = |key| (0..dim).map(|i| value(q, query, i) * value(k, key, i)).sum::<f64>() * scale;
            let scores: Vec<f64> = (0..keys).map(|key| score(key) + bias(head, query, key)).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..dim {
                let sum: f64 = weights.iter().enumerate().map(|(key, weight)| weight * value(v, key, i)).sum();
                out[query * width + head * dim + i] = sum / total;
            }
        }
    }
    out
}

/// Convolves an image with a weight `[out, in, kernel, kernel]`.
pub fn conv2d(x: Image<'_>, shape: ConvShape, weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let ConvShape { kernel, stride, padding_before, .. } = shape;
    let mut out = Vec::new();
    for row in 0..shape.output_side(x.height) {
        for column in 0..shape.output_side(x.width) {
            for (output, bias) in bias.iter().enumerate() {
                let mut sum = f64::from(*bias);
                for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
                    let (y, x0) = (row * stride + i, column * stride + j);
                    if !(padding_before..padding_before + x.height).contains(&y)
                        || !(padding_before..padding_before + x.width).contains(&x0)
                    {
                        continue;
                    }
                    let pixel = ((y - padding_before) * x.width + x0 - padding_before) * x.channels;
                    for channel in 0..x.channels {
                        let weight = weight[((output * x.channels + channel) * kernel + i) * kernel + j];
                        sum += f64::from(weight) * f64::from(x.values[pixel + channel]);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

/// Multiplies and adds in registers, with the vectors that the processor supports, and returns the number of multiplications. Its speed
/// is that of the machine.
pub fn multiplications() -> usize {
    Arch::new().dispatch(Loop)
}

struct Loop;

impl Loop {
    const REPETITIONS: usize = 100_000;
    const SUMS: usize = 12;
}

impl WithSimd for Loop {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let factor = simd.splat_f32s(black_box(0.5));
        let mut sums = [simd.splat_f32s(1.0); Self::SUMS];
        for _ in 0..Self::REPETITIONS {
            // A closure would not be compiled for the vectors of the processor.
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, factor, factor);
            }
        }
        black_box(sums);
        Self::REPETITIONS * Self::SUMS * S::F32_LANES
    }
}
