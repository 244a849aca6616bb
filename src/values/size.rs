//! Sizes, aspect ratios and resolutions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
}
