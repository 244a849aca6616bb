//! Convolutions on a GPU, in bands of rows, each of which gets its own buffer. So only a few rows are normalized at a time, the
//! memory of rows that are not needed any more is used again, and no buffer exceeds what a driver can bind.

use std::ops::Range;

use super::conv::{Conv2d, cannot_add};
use super::elementwise::add;
use crate::error::Result;
use crate::gpu::kernels::{Window, affine, conv2d};
use crate::gpu::{Gpu, GpuWeight};
use crate::tensor::Tensor;

/// What a convolution reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// `[height, width, in]`
    pub(super) image: &'a Tensor,
    /// The number of rows of the whole image above `image`, whose memory was freed.
    pub(super) freed: usize,
    /// The number of times that each pixel is repeated in both directions.
    pub(super) repeat: usize,
    /// The scales and shifts of the channels, which SiLU follows: `[2, in]`.
    pub(super) norm: Option<&'a Tensor>,
}

impl<'a> Source<'a> {
    /// Reads an image as it is.
    pub(super) fn plain(image: &'a Tensor) -> Self {
        Self { image, freed: 0, repeat: 1, norm: None }
    }
}

impl Conv2d {
    /// Convolves an image.
    pub(super) fn convolve_on_gpu(&self, weight: &GpuWeight, source: Source<'_>) -> Result<Tensor> {
        let bands = self.bands(weight.gpu(), source)?.map(|rows| self.convolve_band(weight, source, rows));
        Tensor::in_bands(bands.collect::<Result<_>>()?)
    }

    /// Convolves an image and adds the result to `residual`.
    pub(super) fn add_on_gpu(&self, weight: &GpuWeight, source: Source<'_>, mut residual: Tensor) -> Result<Tensor> {
        let shape = self.output_shape(source)?;
        if residual.shape() != shape {
            return Err(cannot_add(&shape, &residual));
        }
        let [height, ..] = shape;
        let mut bands = Vec::new();
        for rows in self.bands(weight.gpu(), source)? {
            let band = self.convolve_band(weight, source, rows.clone())?;
            bands.push(add(band, &residual.rows(0..rows.len())?)?);
            residual = residual.rows(rows.len()..rows.len() + height - rows.end)?;
        }
        Tensor::in_bands(bands)
    }

    /// Returns what this convolution computes of the normalized image, and what `other` computes of the image.
    pub(super) fn convolve_with_on_gpu(
        &self,
        weight: &GpuWeight,
        norm: &Tensor,
        (other, other_weight): (&Self, &GpuWeight),
        mut image: Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let [height, ..] = image.dims::<3>()?;
        let (mut bands, mut other_bands) = (Vec::new(), Vec::new());
        let mut freed = 0;
        for rows in self.bands(weight.gpu(), Source::plain(&image))? {
            let source = Source { freed, ..Source::plain(&image) };
            bands.push(self.convolve_band(weight, Source { norm: Some(norm), ..source }, rows.clone())?);
            other_bands.push(other.convolve_band(other_weight, source, rows.clone())?);
            // The next band reads the rows above it.
            let needed = rows.end.saturating_sub(self.shape.padding_before);
            image = image.rows(needed - freed..height - freed)?;
            freed = needed;
        }
        Ok((Tensor::in_bands(bands)?, Tensor::in_bands(other_bands)?))
    }

    /// Convolves the rows of the image that determine some rows of the output.
    fn convolve_band(&self, weight: &GpuWeight, source: Source<'_>, rows: Range<usize>) -> Result<Tensor> {
        let Source { image, freed, repeat, norm } = source;
        self.check_channels(image.width())?;
        let [height, ..] = image.dims::<3>()?;
        let (first, padding) = (rows.start * self.shape.stride, self.shape.padding_before);
        let last = (rows.end * self.shape.stride).saturating_sub(self.shape.stride);
        let top = first.saturating_sub(padding) / repeat;
        let bottom = (last + self.shape.kernel).saturating_sub(padding).div_ceil(repeat).min(freed + height);
        let read = image.rows(top.saturating_sub(freed)..bottom.saturating_sub(freed))?;
        let read = match norm {
            None => read,
            Some(norm) => affine(weight.gpu(), &read, norm, true)?,
        };
        let start = first as i32 - padding as i32 - (top * repeat) as i32;
        conv2d(weight, &read, self.shape, repeat, &self.bias, Window { rows: rows.len(), start })
    }

    /// Returns the rows of each band of the output.
    fn bands(&self, gpu: &Gpu, source: Source<'_>) -> Result<impl Iterator<Item = Range<usize>> + use<>> {
        let [height, width, channels] = self.output_shape(source)?;
        let [_, width_read, channels_read] = source.image.dims()?;
        // What the rows read may be twice as large.
        let read = width_read * channels_read * self.shape.stride / source.repeat / 2;
        let rows = (gpu.band_bytes() / 4).checked_div(read.max(width * channels)).unwrap_or(1).max(1);
        Ok((0..height).step_by(rows).map(move |first| first..height.min(first + rows)))
    }

    fn output_shape(&self, Source { image, repeat, .. }: Source<'_>) -> Result<[usize; 3]> {
        let [height, width, _] = image.dims()?;
        let [height, width] = [height, width].map(|side| self.shape.output_side(repeat * side));
        Ok([height, width, self.bias.len()])
    }
}
