//! Convolution of channels-last images.

use lumenfall_kernels::{ConvShape, Convolution, Image, Source, Write};

use super::GroupNorm;
#[cfg(feature = "gpu")]
use super::conv_on_gpu::Source as OnGpu;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::GpuWeight;
use crate::placement::Target;
use crate::tensor::Tensor;
use crate::weights::Scope;

/// The number of rows that [`Conv2d::forward_with_shortcut`] processes before it frees their memory.
const BAND_ROWS: usize = 64;

/// A convolution with a square kernel.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    /// `[kernel, kernel, in, out]`: one matrix per kernel element, so that a kernel row is one tall matrix.
    weight: Tensor,
    /// `[out, kernel, kernel, in]`, if the layer is on a GPU. `weight` then has no values.
    #[cfg(feature = "gpu")]
    pub(super) on_gpu: Option<GpuWeight>,
    /// `[out]`
    pub(super) bias: Tensor,
    pub(super) shape: ConvShape,
}

impl Conv2d {
    /// Reads `weight` `[out, in, kernel, kernel]` and `bias` of a convolution that preserves the image's size.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        let shape = ConvShape { kernel, stride: 1, padding_before: kernel / 2, padding_after: kernel / 2 };
        Self::load_with(scope, inputs, outputs, shape, true)
    }

    /// Reads a convolution as [`Conv2d::load`] does, with no `bias`.
    pub(crate) fn load_without_bias(scope: &Scope<'_>, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        let shape = ConvShape { kernel, stride: 1, padding_before: kernel / 2, padding_after: kernel / 2 };
        Self::load_with(scope, inputs, outputs, shape, false)
    }

    /// Reads a 3×3 convolution that halves the image's size, with padding only at the right and at the bottom.
    pub(crate) fn load_downsample(scope: &Scope<'_>, channels: usize) -> Result<Self> {
        let shape = ConvShape { kernel: 3, stride: 2, padding_before: 0, padding_after: 1 };
        Self::load_with(scope, channels, channels, shape, true)
    }

    fn load_with(scope: &Scope<'_>, inputs: usize, outputs: usize, shape: ConvShape, has_bias: bool) -> Result<Self> {
        let weight = scope.tensor("weight", &[outputs, inputs, shape.kernel, shape.kernel])?;
        let layer = Self {
            weight: Tensor::unread(&[shape.kernel, shape.kernel, inputs, outputs]),
            #[cfg(feature = "gpu")]
            on_gpu: None,
            bias: match has_bias {
                true => scope.tensor("bias", &[outputs])?,
                false => Tensor::new(vec![0.0; outputs], &[outputs])?,
            },
            shape,
        };
        match scope.target() {
            Target::Cpu if scope.reads_headers_only() => Ok(layer),
            Target::Cpu => Ok(Self { weight: weight.permute([2, 3, 1, 0])?, ..layer }),
            #[cfg(feature = "gpu")]
            Target::Gpu(gpu) => {
                Ok(Self { on_gpu: Some(GpuWeight::of_tensor(&gpu, &weight.permute([0, 2, 3, 1])?)?), ..layer })
            }
        }
    }

    /// Convolves `[height, width, in]` to `[new height, new width, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(weight) = &self.on_gpu {
            return self.convolve_on_gpu(weight, OnGpu::plain(x));
        }
        self.convolve(&Source::plain(image(x)?), None)
    }

    /// Convolves an image of twice the width and height, in which each pixel is repeated.
    pub(crate) fn forward_upsampled(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(weight) = &self.on_gpu {
            return self.convolve_on_gpu(weight, OnGpu { repeat: 2, ..OnGpu::plain(x) });
        }
        self.convolve(&Source { repeat: 2, ..Source::plain(image(x)?) }, None)
    }

    /// Normalizes an image, applies SiLU and convolves it.
    pub(crate) fn forward_normalized(&self, norm: &GroupNorm, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(weight) = &self.on_gpu {
            let norm = norm.affine_on_gpu(weight.gpu(), x)?;
            return self.convolve_on_gpu(weight, OnGpu { norm: Some(&norm), ..OnGpu::plain(x) });
        }
        let norm = norm.statistics(x, true)?;
        self.convolve(&Source { norm: Some(&norm), ..Source::plain(image(x)?) }, None)
    }

    /// Adds to `residual` what [`Conv2d::forward_normalized`] returns.
    pub(crate) fn add_normalized(&self, norm: &GroupNorm, x: &Tensor, residual: Tensor) -> Result<Tensor> {
        #[cfg(feature = "gpu")]
        if let Some(weight) = &self.on_gpu {
            let norm = norm.affine_on_gpu(weight.gpu(), x)?;
            return self.add_on_gpu(weight, OnGpu { norm: Some(&norm), ..OnGpu::plain(x) }, residual);
        }
        let norm = norm.statistics(x, true)?;
        self.convolve(&Source { norm: Some(&norm), ..Source::plain(image(x)?) }, Some(residual))
    }

    /// Returns what [`Conv2d::forward_normalized`] and `shortcut` return for an image.
    ///
    /// Starts at the lowest rows and frees the memory of rows that are not needed anymore, so that the image and both
    /// results are never in memory together. Both convolutions must preserve the size of the image.
    pub(crate) fn forward_with_shortcut(
        &self,
        norm: &GroupNorm,
        shortcut: &Self,
        x: Tensor,
    ) -> Result<(Tensor, Tensor)> {
        #[cfg(feature = "gpu")]
        if let (Some(weight), Some(other)) = (&self.on_gpu, &shortcut.on_gpu) {
            let norm = norm.affine_on_gpu(weight.gpu(), &x)?;
            return self.convolve_with_on_gpu(weight, &norm, (shortcut, other), x);
        }
        let norm = norm.statistics(&x, true)?;
        let [height, width, channels] = x.dims()?;
        let (main, other) = (self.prepare(channels, height * width)?, shortcut.prepare(channels, height * width)?);
        let (main_row, other_row) = (width * self.bias.len(), width * shortcut.bias.len());
        // The memory of zeros is not occupied until other values are written.
        let (mut main_out, mut other_out) = (vec![0f32; height * main_row], vec![0f32; height * other_row]);
        let (mut main_rest, mut other_rest) = (main_out.as_mut_slice(), other_out.as_mut_slice());
        let mut values = x.into_values();
        for first in (0..height).step_by(BAND_ROWS).rev() {
            let source = Source::plain(Image { values: &values, height, width, channels });
            let (rest, band) = main_rest.split_at_mut(first * main_row);
            main.compute(&Source { norm: Some(&norm), ..source }, first, Write::Replace, band);
            main_rest = rest;
            let (rest, band) = other_rest.split_at_mut(first * other_row);
            other.compute(&source, first, Write::Replace, band);
            other_rest = rest;
            // The row above the band needs the first row of the band.
            values.truncate((first + 1) * width * channels);
            values.shrink_to_fit();
        }
        let shape = |layer: &Self| [height, width, layer.bias.len()];
        Ok((Tensor::new(main_out, &shape(self))?, Tensor::new(other_out, &shape(shortcut))?))
    }

    /// Prepares the weight for an image of `channels` and an output of `pixels`.
    fn prepare(&self, channels: usize, pixels: usize) -> Result<Convolution<'_>> {
        self.check_channels(channels)?;
        Ok(Convolution::new(self.shape, self.weight.values(), self.bias.values(), pixels))
    }

    pub(super) fn check_channels(&self, channels: usize) -> Result<()> {
        let [_, _, inputs, _] = self.weight.dims()?;
        if channels != inputs {
            let message = format!("a convolution of {inputs} channels received {channels} channels");
            return Err(Error::Compute(message));
        }
        Ok(())
    }

    /// Convolves an image and adds the result to `residual`.
    fn convolve(&self, source: &Source<'_>, residual: Option<Tensor>) -> Result<Tensor> {
        let [height, width] = [source.height(), source.width()].map(|side| self.shape.output_side(side));
        let shape = [height, width, self.bias.len()];
        let convolution = self.prepare(source.image.channels, height * width)?;
        let (write, mut out) = match residual {
            None => (Write::Replace, vec![0f32; shape.iter().product()]),
            Some(residual) if residual.shape() == shape => (Write::Add, residual.into_values()),
            Some(residual) => return Err(cannot_add(&shape, &residual)),
        };
        convolution.compute(source, 0, write, &mut out);
        Tensor::new(out, &shape)
    }
}

pub(super) fn cannot_add(shape: &[usize], residual: &Tensor) -> Error {
    Error::Compute(format!("a convolution to {shape:?} cannot be added to {:?}", residual.shape()))
}

fn image(x: &Tensor) -> Result<Image<'_>> {
    let [height, width, channels] = x.dims()?;
    Ok(Image { values: x.values(), height, width, channels })
}
