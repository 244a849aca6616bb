//! Encoding of files.

use jpeg_encoder::SamplingFactor;

use super::RgbImage;
use super::decode::CodecError;
use super::metadata::{FileMetadata, JSON_KEYWORD, PARAMETERS_KEYWORD};
use crate::error::{Error, Result};

/// The maximum length of EXIF data in a JPEG file: a segment of 65,535 bytes, without its length and prefix.
const MAX_JPEG_EXIF: usize = 65_527;
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

pub(super) fn encode(image: &RgbImage, format: FileFormat, metadata: Option<&FileMetadata>) -> Result<Vec<u8>> {
    let result = match format {
        FileFormat::Png => png(image, metadata),
        FileFormat::Jpeg { quality } => jpeg(image, quality, metadata),
        FileFormat::WebpLossless => webp_lossless(image, metadata),
        FileFormat::WebpLossy { quality } => webp_lossy(image, quality, metadata),
        FileFormat::Gif => gif(image),
        #[cfg(feature = "avif")]
        FileFormat::Avif { quality } => avif(image, quality, metadata),
    };
    result.map_err(|error| Error::Image(format!("cannot encode the image: {error}; choose another file format")))
}

type Encoded = std::result::Result<Vec<u8>, CodecError>;

fn png(image: &RgbImage, metadata: Option<&FileMetadata>) -> Encoded {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    if let Some(FileMetadata { json, parameters }) = metadata {
        // Other text chunks are limited to Latin-1.
        encoder.add_itxt_chunk(JSON_KEYWORD.into(), json.clone())?;
        encoder.add_itxt_chunk(PARAMETERS_KEYWORD.into(), parameters.clone())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&image.pixels)?;
    writer.finish()?;
    Ok(file)
}

fn jpeg(image: &RgbImage, quality: u8, metadata: Option<&FileMetadata>) -> Encoded {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, quality.clamp(1, 100));
    // Without chroma subsampling, edges between saturated colours stay sharp.
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    if let Some(metadata) = metadata {
        let all = Some(metadata.exif()).filter(|exif| exif.len() <= MAX_JPEG_EXIF);
        let exif = all.unwrap_or_else(|| FileMetadata { parameters: String::new(), ..metadata.clone() }.exif());
        encoder.add_exif_metadata(&exif)?;
    }
    let (width, height) = (u16::try_from(image.width)?, u16::try_from(image.height)?);
    encoder.encode(&image.pixels, width, height, jpeg_encoder::ColorType::Rgb)?;
    Ok(file)
}

fn webp_lossless(image: &RgbImage, metadata: Option<&FileMetadata>) -> Encoded {
    let mut file = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut file);
    if let Some(metadata) = metadata {
        encoder.set_exif_metadata(metadata.exif());
    }
    encoder.encode(&image.pixels, image.width, image.height, image_webp::ColorType::Rgb8)?;
    Ok(file)
}

fn webp_lossy(image: &RgbImage, quality: u8, metadata: Option<&FileMetadata>) -> Encoded {
    let config = webp_rust::LossyEncodingConfig { quality: quality.min(100).into(), ..Default::default() };
    let rgba = image.pixels.as_chunks().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, u8::MAX]).collect();
    let image = webp_rust::ImageBuffer { width: image.width as usize, height: image.height as usize, rgba };
    Ok(webp_rust::encode_lossy_with_config(&image, &config, metadata.map(FileMetadata::exif).as_deref())?)
}

fn gif(image: &RgbImage) -> Encoded {
    let mut file = Vec::new();
    let (width, height) = (u16::try_from(image.width)?, u16::try_from(image.height)?);
    let frame = gif::Frame::from_rgb_speed(width, height, &image.pixels, GIF_SPEED);
    gif::Encoder::new(&mut file, width, height, &[])?.write_frame(&frame)?;
    Ok(file)
}

/// The encoder runs on one thread: with more, the bytes of a file would depend on the number of CPUs.
#[cfg(feature = "avif")]
fn avif(image: &RgbImage, quality: u8, metadata: Option<&FileMetadata>) -> Encoded {
    let pixels: Vec<_> = image.pixels.as_chunks().0.iter().map(|[r, g, b]| ravif::RGB8::new(*r, *g, *b)).collect();
    let mut encoder = ravif::Encoder::new().with_quality(quality.clamp(1, 100).into()).with_speed(AVIF_SPEED);
    if let Some(metadata) = metadata {
        encoder = encoder.with_exif(metadata.exif());
    }
    let size = (image.width as usize, image.height as usize);
    Ok(encoder.encode_rgb(ravif::Img::new(&pixels, size.0, size.1))?.avif_file)
}
