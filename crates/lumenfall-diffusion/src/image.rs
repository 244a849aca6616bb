//! 8-bit RGB images and their conversion to tensors.

mod avif;
mod color;
mod decode;
mod encode;
mod exif;
mod jpeg;
mod metadata;
mod orientation;
mod resample;

use std::fmt;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
pub use encode::FileFormat;
pub use metadata::{FileMetadata, read_metadata};

/// An image with 8-bit red, green and blue channels, stored row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

impl RgbImage {
    /// Creates an image from `width * height * 3` bytes.
    ///
    /// # Errors
    /// [`Error::Image`] if a side is 0 or `pixels` has another length.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        let expected = u128::from(width) * u128::from(height) * 3;
        if width == 0 || height == 0 || pixels.len() as u128 != expected {
            return Err(Error::Image(format!(
                "an RGB image of {width}x{height} pixels cannot be created from {} bytes; \
                 both sides must be at least 1 and the length width * height * 3",
                pixels.len()
            )));
        }
        Ok(Self { width, height, pixels })
    }

    /// Decodes a PNG, JPEG, WebP or GIF file; of an animation, the first frame. Transparent pixels are blended with white.
    ///
    /// The EXIF orientation is applied, and colours are converted to sRGB if the file contains an ICC profile. 16 bits per
    /// channel are rounded to 8.
    ///
    /// # Errors
    /// [`Error::Image`] if the file has another format, is corrupt, or has more than 100 million pixels.
    pub fn decode(file: &[u8]) -> Result<Self> {
        let (mut image, alpha) = Self::decode_with_alpha(file)?;
        let pixels = image.pixels.as_chunks_mut::<3>().0;
        for (pixel, alpha) in pixels.iter_mut().zip(alpha.into_iter().flatten()) {
            let alpha = u32::from(alpha);
            *pixel = pixel.map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
        Ok(image)
    }

    /// Decodes a file as [`decode`](Self::decode) does, but returns the colours of transparent pixels as they are stored, and
    /// the alpha of each pixel from 0 (transparent) to 255. Returns no alpha if all pixels are opaque.
    ///
    /// # Errors
    /// The same as [`decode`](Self::decode).
    pub fn decode_with_alpha(file: &[u8]) -> Result<(Self, Option<Vec<u8>>)> {
        decode::decode(file)
    }

    /// Encodes the image as a file.
    ///
    /// # Errors
    /// [`Error::Image`] if the image is too large for the format.
    pub fn encode(&self, format: FileFormat) -> Result<Vec<u8>> {
        encode::encode(self, format, None)
    }

    /// Encodes the image as a file that contains `metadata`; a GIF file cannot contain it.
    ///
    /// If both texts together are too long for a JPEG file, which has space for 65,527 bytes, it contains only the JSON.
    ///
    /// # Errors
    /// The same as [`encode`](Self::encode), and [`Error::Image`] if the metadata is too long for the format.
    pub fn encode_with(&self, format: FileFormat, metadata: &FileMetadata) -> Result<Vec<u8>> {
        encode::encode(self, format, Some(metadata))
    }

    /// Returns the width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Returns red, green and blue of each pixel.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Scales the image as Pillow does with its Lanczos filter.
    pub(crate) fn resized(&self, width: u32, height: u32) -> Result<Self> {
        let pixels = resample::lanczos::<3>(&self.pixels, (self.width, self.height), (width, height));
        Self::new(width, height, pixels)
    }

    /// Returns a tensor `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.pixels.iter().map(|value| f32::from(*value) / 255.0 * 2.0 - 1.0).collect();
        Tensor::new(values, &[self.height as usize, self.width as usize, 3])
    }

    /// Creates an image from a tensor `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let [height, width, _] = tensor.dims()?;
        let tensor = tensor.on_cpu()?;
        let values = tensor.values();
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite(
                "the model produced pixels that are NaN or infinite, so its weight files are corrupt or belong to \
                 different models; download them again"
                    .into(),
            ));
        }
        let to_byte = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        Self::new(width as u32, height as u32, values.iter().map(to_byte).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights in f16 can be too large for their type, and a black image would hide it.
    #[test]
    fn pixels_that_are_not_finite_are_an_error() {
        for (value, is_finite) in [(0.5, true), (f32::NAN, false), (f32::INFINITY, false)] {
            let tensor = Tensor::new(vec![0.0, 0.0, value], &[1, 1, 3]).unwrap();
            match RgbImage::from_tensor(&tensor) {
                Ok(image) => assert!(is_finite && image.pixels() == [128, 128, 191]),
                Err(error) => assert!(!is_finite && matches!(error, Error::NotFinite(_)), "{error}"),
            }
        }
    }
}
