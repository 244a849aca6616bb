//! Convolution and upsampling of channels-last images.

use crate::error::{Error, Result};
use crate::kernels::{self, ConvShape, Image};
use crate::tensor::Tensor;
use crate::weights::Scope;

/// A convolution with a square kernel.
#[derive(Clone, Debug)]
pub(crate) struct Conv2d {
    /// `[kernel, kernel, in, out]`: one matrix per kernel element, so that a kernel row is one tall matrix.
    weight: Tensor,
    /// `[out]`
    bias: Tensor,
    shape: ConvShape,
}

impl Conv2d {
    /// Reads `weight` `[out, in, kernel, kernel]` and `bias` of a convolution that preserves the image's size.
    pub(crate) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize, kernel: usize) -> Result<Self> {
        let shape = ConvShape { kernel, stride: 1, padding_before: kernel / 2, padding_after: kernel / 2 };
        Self::load_with(scope, inputs, outputs, shape)
    }

    /// Reads a 3×3 convolution that halves the image's size, with padding only at the right and at the bottom.
    pub(crate) fn load_downsample(scope: &Scope<'_>, channels: usize) -> Result<Self> {
        let shape = ConvShape { kernel: 3, stride: 2, padding_before: 0, padding_after: 1 };
        Self::load_with(scope, channels, channels, shape)
    }

    fn load_with(scope: &Scope<'_>, inputs: usize, outputs: usize, shape: ConvShape) -> Result<Self> {
        let weight = scope.tensor("weight", &[outputs, inputs, shape.kernel, shape.kernel])?;
        let weight = if scope.reads_headers_only() { weight } else { weight.permute([2, 3, 1, 0])? };
        Ok(Self { weight, bias: scope.tensor("bias", &[outputs])?, shape })
    }

    /// Convolves `[height, width, in]` to `[new height, new width, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let image = image(x)?;
        let [_, _, inputs, outputs] = self.weight.dims()?;
        if image.channels != inputs {
            let message = format!("a convolution of {inputs} channels received {} channels", image.channels);
            return Err(Error::Compute(message));
        }
        let values = kernels::conv2d(image, self.shape, self.weight.values(), self.bias.values());
        let [height, width] = [image.height, image.width].map(|side| self.shape.output_side(side));
        Tensor::new(values, &[height, width, outputs])
    }
}

/// Doubles an image's width and height by repeating each pixel.
pub(crate) fn upsample(x: &Tensor) -> Result<Tensor> {
    let image = image(x)?;
    Tensor::new(kernels::upsample(image), &[2 * image.height, 2 * image.width, image.channels])
}

fn image(x: &Tensor) -> Result<Image<'_>> {
    let [height, width, channels] = x.dims()?;
    Ok(Image { values: x.values(), height, width, channels })
}
