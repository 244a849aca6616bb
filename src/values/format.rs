//! How images are returned, and in which file format.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// How a service returns images: as temporary URLs or as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str")]
pub enum ResponseFormat {
    /// Temporary URLs, `url` in requests.
    #[serde(rename = "url")]
    Url,
    /// The encoded files, `b64_json` in requests.
    #[serde(rename = "b64_json")]
    B64Json,
}

/// Returns the name in requests.
impl From<ResponseFormat> for &'static str {
    fn from(format: ResponseFormat) -> Self {
        match format {
            ResponseFormat::Url => "url",
            ResponseFormat::B64Json => "b64_json",
        }
    }
}

/// The file format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", into = "&'static str")]
pub enum OutputFormat {
    /// PNG, lossless.
    Png,
    /// JPEG, lossy.
    Jpeg,
    /// GIF, at most 256 colours.
    Gif,
    /// WebP, lossy or lossless.
    Webp,
    /// AVIF, lossy.
    Avif,
}

/// Returns the name in requests.
impl From<OutputFormat> for &'static str {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Png => "png",
            OutputFormat::Jpeg => "jpeg",
            OutputFormat::Gif => "gif",
            OutputFormat::Webp => "webp",
            OutputFormat::Avif => "avif",
        }
    }
}

/// Implements the conversions from and to the name in requests. `$names` lists them in error messages.
macro_rules! text_conversions {
    ($type:ty, $all:expr, $parameter:literal, $names:literal) => {
        /// Writes the name in requests.
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad((*self).into())
            }
        }

        /// Parses the name in requests. The error is of the kind [`ErrorKind::InvalidRequest`] and names the parameter.
        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self, Error> {
                $all.into_iter().find(|format| <&str>::from(*format) == name).ok_or_else(|| {
                    let shown: String = name.chars().take(40).collect();
                    let message = format!("`{}` is {shown:?}; it must be {}", $parameter, $names);
                    Error::new(ErrorKind::InvalidRequest, message).with_parameter($parameter)
                })
            }
        }
    };
}

text_conversions!(ResponseFormat, [Self::Url, Self::B64Json], "response_format", "\"url\" or \"b64_json\"");
text_conversions!(OutputFormat, Self::ALL, "output_format", "\"png\", \"jpeg\", \"gif\", \"webp\" or \"avif\"");

impl OutputFormat {
    /// All formats.
    pub const ALL: [Self; 5] = [Self::Png, Self::Jpeg, Self::Gif, Self::Webp, Self::Avif];

    /// The number of leading bytes that [`of`](Self::of) reads.
    pub(crate) const SNIFFED: usize = 32;

    /// Returns whether files of this format can have a compression level.
    pub(crate) fn is_lossy(self) -> bool {
        matches!(self, Self::Jpeg | Self::Webp | Self::Avif)
    }

    /// Detects the format of an encoded image from its first bytes. Returns `None` for any other content.
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

    /// Returns the format that a file extension without the dot stands for, such as `jpg` or `JPEG`. Case is ignored.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        Self::ALL.into_iter().find(|format| extension == format.extension() || extension == <&str>::from(*format))
    }

    /// Returns the media type, such as `image/png`.
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

    /// Returns the usual file extension without the dot, such as `png` or `jpg`.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            format => format.into(),
        }
    }
}

/// Searches the major brand, the minor version and the first compatible brands of an ISO media file for an AVIF brand:
/// some encoders write the general major brand `mif1`.
fn is_avif(brands: &[u8]) -> bool {
    brands.chunks_exact(4).take(5).any(|brand| brand == b"avif" || brand == b"avis")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_detected_and_keep_their_name_in_json() {
        for (bytes, format, name) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], OutputFormat::Png, "png"),
            (b"\xff\xd8\xff\xe0", OutputFormat::Jpeg, "jpeg"),
            (b"GIF87a", OutputFormat::Gif, "gif"),
            (b"RIFF\0\0\0\0WEBPVP8 ", OutputFormat::Webp, "webp"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", OutputFormat::Avif, "avif"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", OutputFormat::Avif, "avif"),
        ] {
            assert_eq!(OutputFormat::of(bytes), Some(format));
            assert_eq!(serde_json::to_value(format).unwrap(), name);
            assert_eq!(serde_json::from_value::<OutputFormat>(name.into()).unwrap(), format);
            assert_eq!((format.to_string().as_str(), name.parse::<OutputFormat>().unwrap()), (name, format));
            for extension in [name.to_uppercase(), format.extension().to_owned()] {
                assert_eq!(OutputFormat::from_extension(&extension), Some(format));
            }
        }
        for (format, name) in [(ResponseFormat::Url, "url"), (ResponseFormat::B64Json, "b64_json")] {
            assert_eq!(serde_json::to_value(format).unwrap(), name);
            assert_eq!(serde_json::from_value::<ResponseFormat>(name.into()).unwrap(), format);
            assert_eq!((format.to_string().as_str(), name.parse::<ResponseFormat>().unwrap()), (name, format));
        }
        for bytes in [&b""[..], b"\x89PN", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x1cftypmp42\0\0\0\0", b"<svg>"] {
            assert_eq!(OutputFormat::of(bytes), None);
        }
    }

    #[test]
    fn unknown_names_are_rejected_with_the_parameter_and_the_known_names() {
        for (error, parameter, message) in [
            (
                "bmp".parse::<OutputFormat>().unwrap_err(),
                "output_format",
                r#"`output_format` is "bmp"; it must be "png", "jpeg", "gif", "webp" or "avif""#,
            ),
            (
                "URL".parse::<ResponseFormat>().unwrap_err(),
                "response_format",
                r#"`response_format` is "URL"; it must be "url" or "b64_json""#,
            ),
        ] {
            assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some(parameter)));
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(format!("[{:>5}]", OutputFormat::Png), "[  png]");
        for extension in ["", "bmp", ".png"] {
            assert_eq!(OutputFormat::from_extension(extension), None);
        }
    }
}
