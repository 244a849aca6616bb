//! Text in image files that describes how they were generated.

use std::io::Cursor;

use zune_jpeg::zune_core::bytestream::ZCursor;

use super::{avif, exif};

/// The keyword of the JSON in a PNG file.
pub(super) const JSON_KEYWORD: &str = "lumenfall";
/// The keyword that other programs use for the parameters in a PNG file.
pub(super) const PARAMETERS_KEYWORD: &str = "parameters";
/// A compressed text that is longer is not read.
const MAX_LENGTH: usize = 1 << 20;

/// Text that is stored in an image file and describes how the image was generated.
///
/// PNG files contain it in two `iTXt` chunks before the pixels: `lumenfall` and `parameters`. JPEG, WebP and AVIF files contain
/// it in EXIF data: the JSON in `MakerNote`, after `lumenfall` and a zero byte, and the parameters in `UserComment`. GIF files
/// have no place for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMetadata {
    /// JSON, which [`read_metadata`] returns unchanged.
    pub json: String,
    /// The parameters as text, for other programs.
    pub parameters: String,
}

impl FileMetadata {
    pub(super) fn exif(&self) -> Vec<u8> {
        exif::write(&self.json, &self.parameters)
    }
}

/// Returns the JSON of the [`FileMetadata`] in an image file, or `None` if the file contains none.
///
/// The image itself is not decoded, and may be invalid.
pub fn read_metadata(file: &[u8]) -> Option<String> {
    match file {
        [0x89, b'P', b'N', b'G', ..] => of_png(file),
        [0xff, 0xd8, 0xff, ..] => {
            let mut decoder = zune_jpeg::JpegDecoder::new(ZCursor::new(file));
            decoder.decode_headers().ok()?;
            exif::private(decoder.exif()?)
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            exif::private(&image_webp::WebPDecoder::new(Cursor::new(file)).ok()?.exif_metadata().ok()??)
        }
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => exif::private(&avif::exif(file)?),
        _ => None,
    }
}

fn of_png(file: &[u8]) -> Option<String> {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().ok()?;
    let is_ours = |chunk: &&png::text_metadata::ITXtChunk| chunk.keyword == JSON_KEYWORD;
    if !reader.info().utf8_text.iter().any(|chunk| is_ours(&chunk)) {
        // Some programs move the text behind the pixels. If these are invalid, the text may have been read nevertheless.
        let _ = reader.finish();
    }
    let mut chunk = reader.info().utf8_text.iter().find(is_ours)?.clone();
    chunk.decompress_text_with_limit(MAX_LENGTH).ok()?;
    chunk.get_text().ok()
}
