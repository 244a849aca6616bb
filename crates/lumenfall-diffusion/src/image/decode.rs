//! Decoding of PNG, WebP and GIF files, and what all formats have in common.

use std::error::Error as StdError;
use std::io::Cursor;

use png::{BitDepth, Transformations};

use super::{RgbImage, color, exif, jpeg, orientation};
use crate::error::{Error, Result};

/// Larger files are refused before memory for their pixels is allocated.
const MAX_PIXELS: u64 = 100_000_000;

/// The error of a codec.
pub(super) type CodecError = Box<dyn StdError>;

/// The content of a file, as it is stored.
pub(super) struct Decoded {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colors: Colors,
    /// One value for each pixel, or none if the file has no transparency.
    pub(super) alpha: Option<Vec<u8>>,
    /// The ICC profile of the colours.
    pub(super) profile: Option<Vec<u8>>,
    /// From 1 to 8, as in EXIF data.
    pub(super) orientation: u8,
}

/// The samples of all pixels, without alpha.
pub(super) enum Colors {
    Gray(Vec<u8>),
    Rgb(Vec<u8>),
    /// The amounts of ink: 0 is white paper.
    Cmyk(Vec<u8>),
}

pub(super) fn decode(file: &[u8]) -> Result<(RgbImage, Option<Vec<u8>>)> {
    let decoded = match file {
        [0x89, b'P', b'N', b'G', ..] => png(file),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(file),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(file),
        [b'G', b'I', b'F', b'8', ..] => gif(file),
        _ => Err(unsupported(file).into()),
    };
    let Decoded { width, height, colors, alpha, profile, orientation } = decoded.map_err(|error| {
        Error::Image(format!(
            "cannot decode the image: {error}; \
             provide a complete PNG, JPEG, WebP or GIF file of at most 100 million pixels"
        ))
    })?;
    let size = (width as usize, height as usize);
    let pixels = orientation::upright(color::to_srgb(colors, profile.as_deref()), size, orientation);
    let alpha = alpha.filter(|alpha| alpha.iter().any(|value| *value != u8::MAX));
    let alpha = alpha.map(|alpha| {
        let alpha = alpha.into_iter().map(|value| [value]).collect();
        orientation::upright(alpha, size, orientation).into_flattened()
    });
    let (width, height) = if orientation < 5 { (width, height) } else { (height, width) };
    Ok((RgbImage::new(width, height, pixels.into_flattened())?, alpha))
}

/// Returns the problem of a file that cannot be decoded.
fn unsupported(file: &[u8]) -> String {
    let format = match file {
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f' | b's', ..] => "AVIF",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "HEIF",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "TIFF",
        [b'B', b'M', ..] => "BMP",
        _ => return "unknown file format".into(),
    };
    format!("{format} is not supported")
}

/// Splits interleaved samples into those of the colours and alpha.
fn split_alpha(samples: Vec<u8>, channels: usize) -> (Colors, Option<Vec<u8>>) {
    let alpha = || samples.iter().skip(channels - 1).step_by(channels).copied().collect();
    match channels {
        1 => (Colors::Gray(samples), None),
        2 => (Colors::Gray(samples.iter().step_by(2).copied().collect()), Some(alpha())),
        3 => (Colors::Rgb(samples), None),
        _ => {
            let colors = samples.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
            (Colors::Rgb(colors), Some(alpha()))
        }
    }
}

pub(super) fn orientation_of(data: Option<&[u8]>) -> u8 {
    data.and_then(exif::orientation).unwrap_or(1)
}

pub(super) fn check_size(width: u32, height: u32) -> std::result::Result<(), CodecError> {
    match u64::from(width) * u64::from(height) {
        0..=MAX_PIXELS => Ok(()),
        _ => Err(format!("it has {width}x{height} pixels").into()),
    }
}

fn png(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info()?;
    let (width, height) = reader.info().size();
    check_size(width, height)?;
    let mut samples = vec![0; reader.output_buffer_size().ok_or("it is too large for this computer")?];
    let frame = reader.next_frame(&mut samples)?;
    if frame.bit_depth == BitDepth::Sixteen {
        let to_byte = |bytes: &[u8; 2]| ((u32::from(u16::from_be_bytes(*bytes)) + 128) / 257) as u8;
        samples = samples.as_chunks().0.iter().map(to_byte).collect();
    }
    let (colors, alpha) = split_alpha(samples, frame.color_type.samples());
    let info = reader.info();
    let profile = info.icc_profile.as_deref().map(<[u8]>::to_vec);
    let orientation = orientation_of(info.exif_metadata.as_deref());
    Ok(Decoded { width, height, colors, alpha, profile, orientation })
}

fn webp(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let mut samples = vec![0; decoder.output_buffer_size().ok_or("it is too large for this computer")?];
    decoder.read_image(&mut samples)?;
    let (colors, alpha) = split_alpha(samples, if decoder.has_alpha() { 4 } else { 3 });
    // Invalid metadata does not make the image unusable.
    let profile = decoder.icc_profile().ok().flatten();
    let orientation = orientation_of(decoder.exif_metadata().ok().flatten().as_deref());
    Ok(Decoded { width, height, colors, alpha, profile, orientation })
}

/// Decodes the first frame. The area around it is transparent.
fn gif(file: &[u8]) -> std::result::Result<Decoded, CodecError> {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    // No frame is larger than the image, whose size is checked below.
    options.check_frame_consistency(true);
    options.set_memory_limit(gif::MemoryLimit::Unlimited);
    let mut decoder = options.read_info(file)?;
    let (width, height) = (decoder.width(), decoder.height());
    check_size(width.into(), height.into())?;
    let frame = decoder.read_next_frame()?.ok_or("it has no frame")?;
    let mut canvas = vec![[0; 4]; usize::from(width) * usize::from(height)];
    let columns = usize::from(frame.left)..usize::from(frame.left) + usize::from(frame.width);
    let target = canvas.chunks_exact_mut(usize::from(width).max(1)).skip(frame.top.into());
    let source = frame.buffer.as_chunks::<4>().0.chunks_exact(usize::from(frame.width).max(1));
    for (row, pixels) in target.zip(source) {
        row.get_mut(columns.clone()).ok_or("its frame is outside the image")?.copy_from_slice(pixels);
    }
    let (colors, alpha) = split_alpha(canvas.into_flattened(), 4);
    let profile = decoder.icc_profile().map(<[u8]>::to_vec);
    Ok(Decoded { width: width.into(), height: height.into(), colors, alpha, profile, orientation: 1 })
}
