//! Which file format some bytes are in, told by their first bytes and never by a file's name.

use super::OutputFormat;

impl OutputFormat {
    /// How many leading bytes [`of`](Self::of) looks at.
    pub(crate) const SNIFFED: usize = 32;

    /// The format of an encoded image, by its magic bytes; `None` where it is none of the five.
    ///
    /// ```
    /// use lumenfall::OutputFormat;
    ///
    /// assert_eq!(OutputFormat::of(b"GIF89a..."), Some(OutputFormat::Gif));
    /// assert_eq!(OutputFormat::of(b"not an image"), None);
    /// ```
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [_, _, _, _, b'f', b't', b'y', b'p', brands @ ..] => is_avif(brands).then_some(Self::Avif),
            _ => None,
        }
    }

    /// The media type, such as `image/png`.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Avif => "image/avif",
        }
    }

    /// The usual ending of a file's name, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Gif => "gif",
            Self::Webp => "webp",
            Self::Avif => "avif",
        }
    }
}

/// An ISO media file is AVIF where its major brand, or one of the first compatible ones, says so:
/// encoders also write the general brand `mif1` first. Between them stands a version of four bytes.
fn is_avif(brands: &[u8]) -> bool {
    brands.chunks_exact(4).take(5).any(|brand| brand == b"avif" || brand == b"avis")
}

#[cfg(test)]
mod tests {
    use super::OutputFormat;

    #[test]
    fn the_five_formats_are_told_by_their_first_bytes() {
        for (bytes, format) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], OutputFormat::Png),
            (b"\xff\xd8\xff\xe0", OutputFormat::Jpeg),
            (b"GIF87a", OutputFormat::Gif),
            (b"RIFF\0\0\0\0WEBPVP8 ", OutputFormat::Webp),
            (b"\0\0\0\x1cftypavif\0\0\0\0", OutputFormat::Avif),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", OutputFormat::Avif),
        ] {
            assert_eq!(OutputFormat::of(bytes), Some(format));
        }
    }

    #[test]
    fn what_is_no_image_has_no_format() {
        for bytes in [&b""[..], b"\x89PN", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x1cftypmp42\0\0\0\0", b"<svg>"] {
            assert_eq!(OutputFormat::of(bytes), None);
        }
    }
}
