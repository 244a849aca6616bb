//! Decoding of JPEG files.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::decode::{CodecError, Colors, Decoded, check_size, orientation_of};

/// The most pixels for each byte of a file. A block of 8x8 pixels has at least one bit; the brightness can have a quarter of the
/// resolution.
const MAX_PIXELS_PER_BYTE: u64 = 4 * 8 * 64;

pub(super) fn decode(file: &[u8]) -> Result<Decoded, CodecError> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    let (width, height) = (u32::try_from(width)?, u32::try_from(height)?);
    check_size(width, height)?;
    // Otherwise the decoder would compute the colour of each missing pixel.
    if u64::from(width) * u64::from(height) > MAX_PIXELS_PER_BYTE * file.len() as u64 {
        return Err(format!("it is too short for {width}x{height} pixels").into());
    }
    // The decoder would replace the missing part with gray.
    let last = |marker: u8| file.windows(2).rposition(|bytes| bytes == [0xff, marker]);
    let (start_of_scan, end_of_image) = (last(0xda), last(0xd9));
    if end_of_image < start_of_scan {
        return Err("its end is missing".into());
    }
    let stored = decoder.input_colorspace().ok_or("it has no colour space")?;
    // The decoder's own conversion of CMYK ignores the ICC profile.
    let output = match stored {
        ColorSpace::Luma | ColorSpace::CMYK | ColorSpace::YCCK => stored,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(output));
    let samples = decoder.decode()?;
    let colors = match output {
        ColorSpace::Luma => Colors::Gray(samples),
        // As in Pillow and in files of Adobe's programs, ink is stored inverted.
        ColorSpace::CMYK => Colors::Cmyk(samples.into_iter().map(|value| !value).collect()),
        ColorSpace::YCCK => Colors::Cmyk(samples.as_chunks().0.iter().copied().flat_map(ycck_to_cmyk).collect()),
        _ => Colors::Rgb(samples),
    };
    let orientation = orientation_of(decoder.exif().map(Vec::as_slice));
    Ok(Decoded { width, height, colors, alpha: None, profile: decoder.icc_profile(), orientation })
}

/// The first three channels are luma and chroma of the inverted colours, which are the amounts of ink.
fn ycck_to_cmyk([luma, blue, red, black]: [u8; 4]) -> [u8; 4] {
    let (luma, blue, red) = (f32::from(luma), f32::from(blue) - 128.0, f32::from(red) - 128.0);
    // A conversion from float to integer saturates.
    let to_byte = |value: f32| value.round() as u8;
    let cyan = to_byte(luma + 1.402 * red);
    let magenta = to_byte(luma - 0.344_136 * blue - 0.714_136 * red);
    let yellow = to_byte(luma + 1.772 * blue);
    [cyan, magenta, yellow, !black]
}
