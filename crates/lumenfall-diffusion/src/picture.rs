//! Pictures: 8-bit RGB, to and from image files.

use std::fmt;
use std::io::Cursor;

use candle_core::{Device, Tensor};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageEncoder, ImageReader, RgbImage};

use crate::error::{Error, Result};

/// Pixels of a picture that is to be decoded, at the most: beyond it the file is taken for an attack.
const MAX_INPUT_PIXELS: u64 = 100_000_000;

/// A picture of 8-bit red, green and blue, row after row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// A file format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// PNG, lossless.
    Png,
    /// JPEG of a quality from 1 to 100.
    Jpeg {
        /// 1 is worst, 100 best.
        quality: u8,
    },
    /// WebP, lossless.
    WebpLossless,
}

impl Picture {
    /// A picture of `width`·`height`·3 bytes.
    ///
    /// # Errors
    /// Where a side is 0 or the number of bytes does not fit.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        if width == 0 || height == 0 || rgb.len() as u128 != u128::from(width) * u128::from(height) * 3 {
            return Err(Error::Image(format!(
                "{} bytes are no RGB picture of {width}x{height}; give width·height·3, and no side of 0",
                rgb.len()
            )));
        }
        Ok(Self { width, height, rgb })
    }

    /// Reads a PNG, JPEG or WebP file. Transparency is laid on white.
    ///
    /// # Errors
    /// Where the bytes are no such file, are damaged, or hold more than 100 million pixels.
    pub fn decode(file: &[u8]) -> Result<Self> {
        let reader = || ImageReader::new(Cursor::new(file)).with_guessed_format();
        let broken = |error: &dyn std::fmt::Display| {
            Error::Image(format!("the image cannot be read ({error}); give a whole PNG, JPEG or WebP file"))
        };
        let (width, height) = reader().map_err(|e| broken(&e))?.into_dimensions().map_err(|e| broken(&e))?;
        if u64::from(width) * u64::from(height) > MAX_INPUT_PIXELS {
            return Err(Error::Image(format!(
                "the image is {width}x{height}; at most 100 million pixels are read, so scale it down"
            )));
        }
        let mut rgba = reader().map_err(|e| broken(&e))?.decode().map_err(|e| broken(&e))?.into_rgba8();
        for pixel in rgba.pixels_mut() {
            let [red, green, blue, alpha] = pixel.0;
            let on_white =
                |value: u8| ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8;
            pixel.0 = [on_white(red), on_white(green), on_white(blue), 255];
        }
        let rgb = rgba.pixels().flat_map(|pixel| pixel.0.into_iter().take(3)).collect();
        Self::from_rgb(width, height, rgb)
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green, blue of each pixel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Writes the picture as an image file.
    ///
    /// # Errors
    /// Where the format cannot hold it.
    pub fn encode(&self, format: FileFormat) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let (width, height, color) = (self.width, self.height, ExtendedColorType::Rgb8);
        match format {
            FileFormat::Png => PngEncoder::new(&mut file).write_image(&self.rgb, width, height, color),
            FileFormat::Jpeg { quality } => JpegEncoder::new_with_quality(&mut file, quality.clamp(1, 100))
                .write_image(&self.rgb, width, height, color),
            FileFormat::WebpLossless => {
                WebPEncoder::new_lossless(&mut file).write_image(&self.rgb, width, height, color)
            }
        }
        .map_err(|error| Error::Image(format!("the image cannot be written: {error}; choose another file format")))?;
        Ok(file)
    }

    /// The picture at another size, by the Lanczos filter.
    pub(crate) fn resized(self, width: u32, height: u32) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self);
        }
        let image = RgbImage::from_raw(self.width, self.height, self.rgb)
            .ok_or_else(|| Error::Image("the picture's bytes do not fit its size; report this defect".into()))?;
        let image = image::imageops::resize(&image, width, height, FilterType::Lanczos3);
        Self::from_rgb(width, height, image.into_raw())
    }

    /// `[height, width, 3]`, values from −1 to 1.
    pub(crate) fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        let values: Vec<f32> = self.rgb.iter().map(|value| f32::from(*value) / 255.0 * 2.0 - 1.0).collect();
        Ok(Tensor::from_vec(values, (self.height as usize, self.width as usize, 3), device)?)
    }

    /// From `[height, width, 3]`, values from −1 to 1.
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let (height, width, _) = tensor.dims3()?;
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::NotFinite(
                "the model computed values that are no numbers; its weight files are damaged or belong to another model: download them again".into(),
            ));
        }
        let rgb =
            values.iter().map(|value| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect();
        Self::from_rgb(width as u32, height as u32, rgb)
    }
}
