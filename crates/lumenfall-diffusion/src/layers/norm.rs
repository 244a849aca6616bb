//! Normalization layers.

use lumenfall_kernels::{self as kernels, Affine};

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::Scope;

/// A layer normalization with a weight and a bias.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    /// `[width]`
    weight: Tensor,
    /// `[width]`
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope<'_>, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.tensor("weight", &[width])?, bias: scope.tensor("bias", &[width])?, eps })
    }

    /// Normalizes each row of `[tokens, width]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, self.eps, 0.0, &self.weight, &self.bias)
    }
}

/// Computes `normalized(x) * (1 + scale) + shift`. `x` is `[tokens, width]`, `shift` and `scale` are `[width]`.
pub(crate) fn norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    layer_norm(x, eps, 1.0, scale, shift)
}

fn layer_norm(x: &Tensor, eps: f64, base: f32, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    if x.width() != scale.len() || scale.len() != shift.len() {
        return Err(Error::Compute(format!("a norm of {} values received {:?}", scale.len(), x.shape())));
    }
    #[cfg(feature = "gpu")]
    if let Some(gpu) = crate::gpu::of([x, scale, shift]) {
        return crate::gpu::kernels::layer_norm(gpu, x, eps, base, scale, shift);
    }
    Tensor::new(kernels::layer_norm(x.values(), eps, base, scale.values(), shift.values()), x.shape())
}

/// A root mean square normalization over groups of the weight's length: the whole row in T5, an attention head in MMDiT.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Reads `weight`, which has `width` values.
    pub(crate) fn load(scope: &Scope<'_>, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.tensor("weight", &[width])?, eps })
    }

    /// Computes `x / √(mean(x²) + eps) * weight`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if !x.width().is_multiple_of(self.weight.len()) {
            return Err(Error::Compute(format!("a norm of {} values received {:?}", self.weight.len(), x.shape())));
        }
        #[cfg(feature = "gpu")]
        if let Some(gpu) = x.gpu() {
            return crate::gpu::kernels::rms_norm(gpu, x, self.eps, &self.weight);
        }
        Tensor::new(kernels::rms_norm(x.values(), self.eps, self.weight.values()), x.shape())
    }
}

/// A group normalization of images with a weight and a bias per channel.
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
    pub(crate) fn load(scope: &Scope<'_>, groups: usize, channels: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: scope.tensor("weight", &[channels])?, bias: scope.tensor("bias", &[channels])?, groups, eps })
    }

    /// Normalizes `[height, width, channels]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(gpu) = x.gpu() {
            return crate::gpu::kernels::affine(gpu, x, &self.affine_on_gpu(gpu, x)?, false);
        }
        Tensor::new(kernels::apply(x.values(), &self.statistics(x, false)?), x.shape())
    }

    /// Computes on a GPU how to normalize the channels of `[height, width, channels]`: all scales and then all shifts, as
    /// `[2, channels]`.
    #[cfg(feature = "gpu")]
    pub(super) fn affine_on_gpu(&self, gpu: &crate::gpu::Gpu, x: &Tensor) -> Result<Tensor> {
        self.check_channels(x)?;
        crate::gpu::kernels::group_affine(gpu, x, &self.weight, &self.bias, self.groups, self.eps)
    }

    /// Computes how to normalize the channels of `[height, width, channels]`. SiLU follows if `silu` is true.
    pub(super) fn statistics(&self, x: &Tensor, silu: bool) -> Result<Affine> {
        self.check_channels(x)?;
        let (weight, bias) = (self.weight.values(), self.bias.values());
        Ok(kernels::group_statistics(x.values(), weight, bias, self.groups, self.eps, silu))
    }

    fn check_channels(&self, x: &Tensor) -> Result<()> {
        if x.width() != self.weight.len() {
            return Err(Error::Compute(format!("a norm of {} channels received {:?}", self.weight.len(), x.shape())));
        }
        Ok(())
    }
}
