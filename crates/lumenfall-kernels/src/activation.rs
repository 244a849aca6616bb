//! Activation functions.

use rayon::prelude::*;

use super::math;

/// The number of values that one task processes.
pub(super) const CHUNK: usize = 16 * 1024;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU, approximated with tanh (MMDiT and T5).
    GeluTanh,
    /// GELU, exact (CLIP-G).
    GeluErf,
    /// `x * sigmoid(1.702 * x)` (CLIP-L).
    QuickGelu,
    /// `x * sigmoid(x)`.
    Silu,
    /// The larger of `x` and 0 (TAESD).
    Relu,
}

impl Activation {
    #[inline(always)]
    fn apply(self, row: &mut [f32]) {
        match self {
            Self::GeluTanh => row.iter_mut().for_each(|x| *x = math::gelu_tanh(*x)),
            Self::QuickGelu => row.iter_mut().for_each(|x| *x = math::swish(*x, 1.702)),
            Self::Silu => row.iter_mut().for_each(|x| *x = math::swish(*x, 1.0)),
            // `max` would hide a NaN.
            Self::Relu => row.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            // The error function does not vectorize well, but CLIP-G is a small part of the work.
            Self::GeluErf => row.iter_mut().for_each(|x| {
                let wide = f64::from(*x);
                *x = (0.5 * wide * (1.0 + libm::erf(wide * std::f64::consts::FRAC_1_SQRT_2))) as f32;
            }),
        }
    }
}

/// Adds `bias` to each row of `width` values and applies `activation`, in parallel.
pub fn bias_activation(values: &mut [f32], width: usize, bias: Option<&[f32]>, activation: Option<Activation>) {
    if bias.is_none() && activation.is_none() {
        return;
    }
    let rows = (CHUNK / width.max(1)).max(1);
    values.par_chunks_mut(rows * width).for_each(|chunk| {
        vectorized!({
            for row in chunk.chunks_exact_mut(width) {
                if let Some(bias) = bias {
                    row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
                }
                if let Some(activation) = activation {
                    activation.apply(row);
                }
            }
        });
    });
}
