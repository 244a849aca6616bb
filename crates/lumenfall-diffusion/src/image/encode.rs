//! Encoding of files.

use jpeg_encoder::SamplingFactor;

use super::RgbImage;
use super::decode::CodecError;
use crate::error::{Error, Result};

/// From 1 (best palette) to 30 (fastest).
const GIF_SPEED: i32 = 10;
/// From 1 (smallest files) to 10 (fastest).
#[cfg(feature = "avif")]
const AVIF_SPEED: u8 = 6;

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
    /// Lossy WebP.
    WebpLossy {
        /// Quality from 0 (worst) to 100 (best).
        quality: u8,
    },
    /// GIF, with a palette of at most 256 colours.
    Gif,
    /// AVIF, which takes several seconds for an image of 1024x1024 pixels.
    #[cfg(feature = "avif")]
    Avif {
        /// Quality from 1 (worst) to 100 (best).
        quality: u8,
    },
}

pub(super) fn encode(image: &RgbImage, format: FileFormat) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let result = match format {
        FileFormat::Png => encode_png(image, &mut file),
        FileFormat::Jpeg { quality } => encode_jpeg(image, quality, &mut file),
        FileFormat::WebpLossless => encode_webp_lossless(image, &mut file),
        FileFormat::WebpLossy { quality } => encode_webp_lossy(image, quality, &mut file),
        FileFormat::Gif => encode_gif(image, &mut file),
        #[cfg(feature = "avif")]
        FileFormat::Avif { quality } => encode_avif(image, quality, &mut file),
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

fn encode_webp_lossless(image: &RgbImage, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let encoder = image_webp::WebPEncoder::new(file);
    Ok(encoder.encode(&image.pixels, image.width, image.height, image_webp::ColorType::Rgb8)?)
}

fn encode_webp_lossy(image: &RgbImage, quality: u8, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let config = webp_rust::LossyEncodingConfig { quality: quality.min(100).into(), ..Default::default() };
    let rgba = image.pixels.as_chunks().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, u8::MAX]).collect();
    let image = webp_rust::ImageBuffer { width: image.width as usize, height: image.height as usize, rgba };
    *file = webp_rust::encode_lossy_with_config(&image, &config, None)?;
    Ok(())
}

fn encode_gif(image: &RgbImage, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let (width, height) = (u16::try_from(image.width)?, u16::try_from(image.height)?);
    let frame = gif::Frame::from_rgb_speed(width, height, &image.pixels, GIF_SPEED);
    Ok(gif::Encoder::new(file, width, height, &[])?.write_frame(&frame)?)
}

/// The encoder runs on one thread: with more, the bytes of a file would depend on the number of CPUs.
#[cfg(feature = "avif")]
fn encode_avif(image: &RgbImage, quality: u8, file: &mut Vec<u8>) -> std::result::Result<(), CodecError> {
    let pixels: Vec<_> = image.pixels.as_chunks().0.iter().map(|[r, g, b]| ravif::RGB8::new(*r, *g, *b)).collect();
    let encoder = ravif::Encoder::new().with_quality(quality.clamp(1, 100).into()).with_speed(AVIF_SPEED);
    *file = encoder.encode_rgb(ravif::Img::new(&pixels, image.width as usize, image.height as usize))?.avif_file;
    Ok(())
}
