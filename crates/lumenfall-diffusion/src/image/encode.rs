//! Encoding of PNG, JPEG and WebP files.

use jpeg_encoder::SamplingFactor;

use super::RgbImage;
use super::decode::CodecError;
use crate::error::{Error, Result};

/// A file format for [`RgbImage::encode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFormat {
    /// PNG, lossless.
    Png,
    /// JPEG.
    Jpeg {
        /// Quality from 1 (worst) to 100 (best).
        quality: u8,
    },
    /// Lossless WebP.
    WebpLossless,
}

pub(super) fn encode(image: &RgbImage, format: FileFormat) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let result = match format {
        FileFormat::Png => encode_png(image, &mut file),
        FileFormat::Jpeg { quality } => encode_jpeg(image, quality, &mut file),
        FileFormat::WebpLossless => encode_webp(image, &mut file),
    };
    match result {
        Ok(()) => Ok(file),
        Err(error) => Err(Error::Image(format!("cannot encode the image: {error}; choose another file format"))),
    }
}

fn encode_png(image: &RgbImage, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let mut encoder = png::Encoder::new(file, image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    Ok(writer.finish()?)
}

fn encode_jpeg(image: &RgbImage, quality: u8, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let mut encoder = jpeg_encoder::Encoder::new(file, quality.clamp(1, 100));
    // Without chroma subsampling, edges between saturated colours stay sharp.
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    let (width, height) = (u16::try_from(image.width)?, u16::try_from(image.height)?);
    Ok(encoder.encode(&image.pixels, width, height, jpeg_encoder::ColorType::Rgb)?)
}

fn encode_webp(image: &RgbImage, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let encoder = image_webp::WebPEncoder::new(file);
    Ok(encoder.encode(&image.pixels, image.width, image.height, image_webp::ColorType::Rgb8)?)
}
