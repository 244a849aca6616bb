//! Sizes, aspect ratios and resolutions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::OutputFormat;
use crate::error::{Error, ErrorKind};

/// The size of an image: pixels (`1024x1024`) or an aspect ratio (`16:9`).
///
/// The limits of the model are checked when a request is built or sent, not here.
///
/// ```
/// use lumenfall::Size;
///
/// let size: Size = "1024x768".parse()?;
/// assert_eq!(size, Size::pixels(1024, 768)?);
/// assert_eq!(size.to_string(), "1024x768");
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Size {
    /// Width and height in pixels.
    Pixels {
        /// The width in pixels.
        width: u32,
        /// The height in pixels.
        height: u32,
    },
    /// An aspect ratio; the backend chooses the number of pixels.
    Ratio(AspectRatio),
}

impl Size {
    /// Returns a size in pixels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the width or the height is 0.
    pub fn pixels(width: u32, height: u32) -> Result<Self, Error> {
        Self::Pixels { width, height }.to_string().parse()
    }

    /// Returns the size of an encoded image in pixels, which is read from its header. Returns `None` if the bytes are not an
    /// image in one of the [`OutputFormat`]s, or if the header is truncated.
    ///
    /// ```
    /// use lumenfall::Size;
    ///
    /// let gif = b"GIF89a\x40\x01\xf0\x00\0\0\0";
    /// assert_eq!(Size::of(gif), Some(Size::pixels(320, 240)?));
    /// # Ok::<(), lumenfall::Error>(())
    /// ```
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        dimensions(bytes).map(|(width, height)| Self::Pixels { width, height })
    }

    /// Parses literals at compile time and text at run time.
    pub(crate) const fn parse(text: &str) -> Result<Self, ()> {
        match positive_pair(text, b'x') {
            Some((width, height)) => Ok(Self::Pixels { width, height }),
            None => match AspectRatio::parse(text) {
                Ok(ratio) => Ok(Self::Ratio(ratio)),
                Err(()) => Err(()),
            },
        }
    }
}

/// Returns the width and the height of an encoded image, in pixels.
pub(crate) fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let format = OutputFormat::of(bytes)?;
    // `imagesize` reads the width of a PNG without this check.
    if format == OutputFormat::Png && bytes.get(12..16) != Some(b"IHDR") {
        return None;
    }
    let size = imagesize::blob_size(bytes).ok()?;
    let (width, height) = (size.width.try_into().ok()?, size.height.try_into().ok()?);
    (width > 0 && height > 0).then_some((width, height))
}

/// An aspect ratio, `width:height`, such as `16:9`. It is not reduced: `4:2` differs from `2:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AspectRatio {
    width: u32,
    height: u32,
}

impl AspectRatio {
    /// Returns the ratio `width:height`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the width or the height is 0.
    pub fn new(width: u32, height: u32) -> Result<Self, Error> {
        Self { width, height }.to_string().parse()
    }

    /// Returns the number before the colon.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Returns the number after the colon.
    pub fn height(self) -> u32 {
        self.height
    }

    pub(crate) const fn parse(text: &str) -> Result<Self, ()> {
        match positive_pair(text, b':') {
            Some((width, height)) => Ok(Self { width, height }),
            None => Err(()),
        }
    }
}

/// The number of pixels as a tier, such as `1K`: as many pixels as a square of 1024x1024 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Resolution {
    kilopixels: u32,
}

impl Resolution {
    /// Returns the tier of a square whose side is `kilopixels` times 1024 pixels.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if `kilopixels` is 0.
    pub fn new(kilopixels: u32) -> Result<Self, Error> {
        Self { kilopixels }.to_string().parse()
    }

    /// Returns the number before the `K`.
    pub fn kilopixels(self) -> u32 {
        self.kilopixels
    }

    pub(crate) const fn parse(text: &str) -> Result<Self, ()> {
        let Some((digits, rest)) = split(text, b'K') else { return Err(()) };
        match positive(digits) {
            Some(kilopixels) if rest.is_empty() => Ok(Self { kilopixels }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels { width, height } => write!(f, "{width}x{height}"),
            Self::Ratio(ratio) => ratio.fmt(f),
        }
    }
}

impl fmt::Display for AspectRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.width, self.height)
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}K", self.kilopixels)
    }
}

/// Implements the conversions from and to text. `$form` shows valid text in error messages.
macro_rules! text_conversions {
    ($type:ty, $parameter:literal, $form:literal) => {
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::parse(text).map_err(|()| {
                    let shown: String = text.chars().take(40).collect();
                    let message = format!("`{}` is {shown:?}; write it as {}, without zeros", $parameter, $form);
                    Error::new(ErrorKind::InvalidRequest, message).with_parameter($parameter)
                })
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

text_conversions!(Size, "size", "\"1024x1024\" or \"16:9\"");
text_conversions!(AspectRatio, "aspect_ratio", "\"16:9\"");
text_conversions!(Resolution, "resolution", "\"1K\"");

const fn positive_pair(text: &str, separator: u8) -> Option<(u32, u32)> {
    let Some((first, second)) = split(text, separator) else { return None };
    match (positive(first), positive(second)) {
        (Some(first), Some(second)) => Some((first, second)),
        _ => None,
    }
}

/// Splits `text` at the first ASCII character `separator`.
const fn split(text: &str, separator: u8) -> Option<(&str, &str)> {
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte == separator {
            let at = text.len() - rest.len();
            return Some((text.split_at(at).0, text.split_at(at + 1).1));
        }
        rest = tail;
    }
    None
}

/// Parses a positive number without a sign.
const fn positive(digits: &str) -> Option<u32> {
    match u32::from_str_radix(digits, 10) {
        Ok(value) if value > 0 && !matches!(digits.as_bytes(), [b'+', ..]) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_text_and_zeros_are_rejected() {
        for text in
            ["", "x", "1024", "1024x", "0x512", "512x0", "+1x1", "1x1x1", "4294967296x1", "16:0", "16:9:1", "16/9"]
        {
            let error = text.parse::<Size>().unwrap_err();
            assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("size")), "{text:?}");
            assert!(text.parse::<AspectRatio>().is_err(), "{text:?}");
        }
        for text in ["", "K", "0K", "1k", "1", "1KK", "-1K"] {
            assert_eq!(text.parse::<Resolution>().unwrap_err().parameter(), Some("resolution"), "{text:?}");
        }
        assert!(Size::pixels(0, 512).is_err() && AspectRatio::new(1, 0).is_err() && Resolution::new(0).is_err());
        let message = "1024*768".parse::<Size>().unwrap_err().to_string();
        assert_eq!(message, "`size` is \"1024*768\"; write it as \"1024x1024\" or \"16:9\", without zeros");
    }

    /// Headers of images of 3x2 pixels.
    fn headers() -> [Vec<u8>; 7] {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02\x08\x02\0\0\0".to_vec();
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0\xff\xc0\0\x11\x08\0\x02\0\x03\x03".to_vec();
        let gif = b"GIF89a\x03\0\x02\0\0\0\0".to_vec();
        let lossy = b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x03\0\x02\0".to_vec();
        let lossless = b"RIFF\x14\0\0\0WEBPVP8L\x07\0\0\0\x2f\x02\x40\0\0\0\0".to_vec();
        let avif = |file_type: &[u8]| {
            let ispe = b"\0\0\0\x14ispe\0\0\0\0\0\0\0\x03\0\0\0\x02";
            let head = [&b"\0\0\0\x2cmeta\0\0\0\0\0\0\0\x24iprp\0\0\0\x1cipco"[..], ispe].concat();
            [file_type, &head, b"\0\0\0\x08mdat"].concat()
        };
        let brands = [&b"\0\0\0\x14ftypavif\0\0\0\0avif"[..], b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif"];
        let [avif, general] = brands.map(avif);
        [png, jpeg, gif, lossy, lossless, avif, general]
    }

    #[test]
    fn the_size_of_an_image_is_read_from_its_header() {
        for header in headers() {
            let shown = header.escape_ascii();
            assert_eq!(Size::of(&header), Some(Size::Pixels { width: 3, height: 2 }), "{shown}");
            assert_eq!(dimensions(header.get(..8).unwrap()), None, "truncated: {shown}");
        }
        let without_header = b"\x89PNG\r\n\x1a\n and the rest of an image";
        let without_pixels = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0\0\0\0\x02\x08\x02\0\0\0";
        for bytes in [
            &b""[..],
            b"<html>",
            b"BM\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0\0",
            without_header,
            without_pixels,
        ] {
            assert_eq!(dimensions(bytes), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn malformed_headers_never_panic(which in 0..7_usize, at in 4..64_usize, replacement in proptest::array::uniform4(0..=255_u8)) {
            let mut header = headers().into_iter().nth(which).unwrap();
            let at = at % header.len();
            header.splice(at..(at + 4).min(header.len()), replacement);
            let _ = dimensions(&header);
        }
    }
}
