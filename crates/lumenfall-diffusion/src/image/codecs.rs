//! Decoding and encoding of PNG, JPEG and WebP files.

use std::error::Error as StdError;
use std::io::Cursor;

use jpeg_encoder::SamplingFactor;
use png::Transformations;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{RgbImage, orientation};
use crate::error::{Error, Result};

/// Larger files are refused before memory for their pixels is allocated.
const MAX_PIXELS: u64 = 100_000_000;

/// The error of a codec.
type CodecError = Box<dyn StdError>;

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

/// The pixels of a decoded file: gray and alpha, RGB, or RGBA.
struct Decoded {
    /// From 1 to 8, as in EXIF data.
    orientation: u8,
    width: u32,
    height: u32,
    channels: usize,
    samples: Vec<u8>,
}

pub(super) fn decode(file: &[u8]) -> Result<RgbImage> {
    let decoded = match file {
        [0x89, b'P', b'N', b'G', ..] => decode_png(file),
        [0xff, 0xd8, 0xff, ..] => decode_jpeg(file),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => decode_webp(file),
        _ => Err("unknown file format".into()),
    };
    let Decoded { orientation, width, height, channels, samples } = decoded.map_err(|error| {
        Error::Image(format!(
            "cannot decode the image: {error}; provide a complete PNG, JPEG or WebP file of at most 100 million pixels"
        ))
    })?;
    let on_white = |value: u8, alpha: u8| {
        ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
    };
    let to_rgb = |pixel: &[u8]| match *pixel {
        [gray, alpha] => [on_white(gray, alpha); 3],
        [red, green, blue, alpha] => [red, green, blue].map(|value| on_white(value, alpha)),
        [red, green, blue] => [red, green, blue],
        _ => [0; 3],
    };
    let image = RgbImage::new(width, height, samples.chunks_exact(channels).flat_map(to_rgb).collect())?;
    orientation::upright(image, orientation)
}

fn orientation_of(exif: Option<&[u8]>) -> u8 {
    exif.and_then(orientation::of_exif).unwrap_or(1)
}

fn check_size(width: u32, height: u32) -> std::result::Result<(), CodecError> {
    match u64::from(width) * u64::from(height) {
        0..=MAX_PIXELS => Ok(()),
        _ => Err(format!("it has {width}x{height} pixels").into()),
    }
}

fn decode_png(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::normalize_to_color8() | Transformations::ALPHA);
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    check_size(width, height)?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or("it is too large for this computer")?];
    let frame = reader.next_frame(&mut samples)?;
    let orientation = orientation_of(reader.info().exif_metadata.as_deref());
    Ok(Decoded { orientation, width, height, channels: frame.color_type.samples(), samples })
}

fn decode_jpeg(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    let (width, height) = (u32::try_from(width)?, u32::try_from(height)?);
    check_size(width, height)?;
    // The decoder would replace the missing part with gray.
    let last = |marker: u8| file.windows(2).rposition(|bytes| bytes == [0xff, marker]);
    let (start_of_scan, end_of_image) = (last(0xda), last(0xd9));
    if end_of_image < start_of_scan {
        return Err("its end is missing".into());
    }
    let samples = decoder.decode()?;
    let orientation = orientation_of(decoder.exif().map(Vec::as_slice));
    Ok(Decoded { orientation, width, height, channels: 3, samples })
}

fn decode_webp(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let mut samples = vec![0; decoder.output_buffer_size().ok_or("it is too large for this computer")?];
    decoder.read_image(&mut samples)?;
    // Invalid metadata does not make the image unusable.
    let exif = decoder.exif_metadata().ok().flatten();
    let orientation = orientation_of(exif.as_deref());
    Ok(Decoded { orientation, width, height, channels: if decoder.has_alpha() { 4 } else { 3 }, samples })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn png(color: png::ColorType, depth: png::BitDepth, palette: Option<&'static [u8]>, data: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        file
    }

    #[test]
    fn every_png_color_type_becomes_rgb_on_white() {
        use png::BitDepth::{Eight, One, Sixteen};
        use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        let palette: &[u8] = &[1, 2, 3, 4, 5, 6];
        for (file, expected) in [
            (png(Grayscale, One, None, &[0b0100_0000]), [0, 0, 0, 255, 255, 255]),
            (png(Grayscale, Eight, None, &[7, 200]), [7, 7, 7, 200, 200, 200]),
            (png(GrayscaleAlpha, Eight, None, &[7, 255, 7, 0]), [7, 7, 7, 255, 255, 255]),
            (png(Indexed, Eight, Some(palette), &[1, 0]), [4, 5, 6, 1, 2, 3]),
            (png(Rgb, Sixteen, None, &[9, 9, 8, 8, 7, 7, 1, 1, 2, 2, 3, 3]), [9, 8, 7, 1, 2, 3]),
            (png(Rgba, Eight, None, &[0, 100, 200, 128, 0, 100, 200, 0]), [127, 177, 227, 255, 255, 255]),
        ] {
            assert_eq!(decode(&file).unwrap().pixels, expected);
        }
    }

    #[test]
    fn gray_and_cmyk_jpeg_and_transparent_webp_become_rgb() {
        let jpeg = |color, data: &[u8]| {
            let mut file = Vec::new();
            jpeg_encoder::Encoder::new(&mut file, 100).encode(&data.repeat(64), 8, 8, color).unwrap();
            decode(&file).unwrap()
        };
        assert_eq!(jpeg(jpeg_encoder::ColorType::Luma, &[90]).pixels, [90; 8 * 8 * 3]);
        let cyan = jpeg(jpeg_encoder::ColorType::Cmyk, &[255, 0, 0, 0]).pixels;
        assert!(matches!(cyan[..3], [0..=3, 252..=255, 252..=255]), "{:?}", &cyan[..3]);

        let mut webp = Vec::new();
        let samples = [10, 20, 30, 255, 10, 20, 30, 0];
        image_webp::WebPEncoder::new(&mut webp).encode(&samples, 2, 1, image_webp::ColorType::Rgba8).unwrap();
        assert_eq!(decode(&webp).unwrap().pixels, [10, 20, 30, 255, 255, 255]);
    }

    #[test]
    fn a_truncated_jpeg_is_refused() {
        let noise: Vec<u8> = (0..64 * 64 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = encode(&RgbImage::new(64, 64, noise).unwrap(), FileFormat::Jpeg { quality: 90 }).unwrap();
        decode(&file).unwrap();
        let message = decode(file.get(..file.len() / 2).unwrap()).unwrap_err().to_string();
        assert!(message.contains("its end is missing"), "{message}");
    }

    #[test]
    fn photos_in_every_format_become_upright() {
        let image = RgbImage::new(16, 8, [200, 100, 50].repeat(16 * 8)).unwrap();
        // EXIF data with the orientation 6 only.
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 16, 8);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::eXIf, exif).unwrap();
        writer.write_image_data(&image.pixels).unwrap();
        drop(writer);
        let mut jpeg = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
        encoder.add_app_segment(1, [b"Exif\0\0", exif.as_slice()].concat()).unwrap();
        encoder.encode(&image.pixels, 16, 8, jpeg_encoder::ColorType::Rgb).unwrap();
        let mut webp = Vec::new();
        let mut encoder = image_webp::WebPEncoder::new(&mut webp);
        encoder.set_exif_metadata(exif.to_vec());
        encoder.encode(&image.pixels, 16, 8, image_webp::ColorType::Rgb8).unwrap();
        for file in [png, jpeg, webp] {
            let decoded = decode(&file).unwrap();
            assert_eq!((decoded.width, decoded.height), (8, 16), "{:?}", file.get(..12));
        }
    }

    #[test]
    fn images_of_more_than_100_million_pixels_are_refused_before_they_are_decoded() {
        let mut file = Vec::new();
        let mut writer = png::Encoder::new(&mut file, 20_000, 20_000).write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
        drop(writer);
        let message = decode(&file).unwrap_err().to_string();
        assert!(message.contains("it has 20000x20000 pixels"), "{message}");
    }
}
