//! 8-bit RGB images and their conversion to tensors.

mod codecs;
mod orientation;

use std::fmt;

use resize::px::RGB;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
pub use codecs::FileFormat;

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

    /// Decodes a PNG, JPEG or WebP file. Transparent pixels are blended with white.
    ///
    /// # Errors
    /// [`Error::Image`] if the file has another format, is corrupt, or has more than 100 million pixels.
    pub fn decode(file: &[u8]) -> Result<Self> {
        codecs::decode(file)
    }

    /// Encodes the image as a file.
    ///
    /// # Errors
    /// [`Error::Image`] if the image is too large for the format.
    pub fn encode(&self, format: FileFormat) -> Result<Vec<u8>> {
        codecs::encode(self, format)
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

    /// Scales the image with a Lanczos filter.
    pub(crate) fn resized(&self, width: u32, height: u32) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let source: Vec<RGB<u8>> =
            self.pixels.as_chunks().0.iter().map(|[r, g, b]| RGB { r: *r, g: *g, b: *b }).collect();
        let mut target = vec![RGB { r: 0, g: 0, b: 0 }; width as usize * height as usize];
        let size = [self.width, self.height, width, height].map(|side| side as usize);
        let [source_width, source_height, target_width, target_height] = size;
        let (format, filter) = (resize::Pixel::RGB8, resize::Type::Lanczos3);
        resize::new(source_width, source_height, target_width, target_height, format, filter)
            .and_then(|mut resizer| resizer.resize(&source, &mut target))
            .map_err(|error| Error::Image(format!("cannot resize the image to {width}x{height}: {error}")))?;
        Self::new(width, height, target.into_iter().flat_map(|pixel| [pixel.r, pixel.g, pixel.b]).collect())
    }

    /// Returns a tensor `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn to_tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.pixels.iter().map(|value| f32::from(*value) / 255.0 * 2.0 - 1.0).collect();
        Tensor::new(values, &[self.height as usize, self.width as usize, 3])
    }

    /// Creates an image from a tensor `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let [height, width, _] = tensor.dims()?;
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

    #[test]
    fn resizing_keeps_flat_colours_and_gradients() {
        let flat = RgbImage::new(1, 1, vec![10, 20, 30]).unwrap().resized(16, 32).unwrap();
        assert_eq!(flat.pixels().as_chunks().0, [[10, 20, 30]; 16 * 32]);

        let row: Vec<u8> = (0..64).flat_map(|x| [x * 4; 3]).collect();
        let half = RgbImage::new(64, 2, row.repeat(2)).unwrap().resized(32, 16).unwrap();
        let expected = |x: u8| x * 8 + 2;
        for (x, value) in (0..32).zip(half.pixels().iter().step_by(3)).skip(3).take(26) {
            assert!(value.abs_diff(expected(x)) <= 1, "column {x} is {value}");
        }
    }
}
