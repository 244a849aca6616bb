//! Sizes, aspect ratios and resolution tiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// Pixels (`1024x1024`) or an aspect ratio (`16:9`), as the parameter `size` takes it.
///
/// How large a model allows is checked against its schema, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Size {
    /// Width and height in pixels.
    Pixels {
        /// Pixels from left to right.
        width: u32,
        /// Pixels from top to bottom.
        height: u32,
    },
    /// A shape without a scale.
    Ratio(AspectRatio),
}

impl Size {
    /// A size in pixels.
    ///
    /// # Errors
    /// Where a side is 0.
    pub fn pixels(width: u32, height: u32) -> Result<Self, Error> {
        if width == 0 || height == 0 {
            return Err(invalid(
                "size",
                format!("size {width}x{height} has a side of 0 pixels; give both sides at least 1"),
            ));
        }
        Ok(Self::Pixels { width, height })
    }
}

/// The shape of an image, `width:height`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AspectRatio {
    width: u32,
    height: u32,
}

impl AspectRatio {
    /// A ratio of two whole numbers.
    ///
    /// # Errors
    /// Where one of them is 0.
    pub fn new(width: u32, height: u32) -> Result<Self, Error> {
        if width == 0 || height == 0 {
            return Err(invalid(
                "aspect_ratio",
                format!("aspect ratio {width}:{height} has a side of 0; write it as \"16:9\""),
            ));
        }
        Ok(Self { width, height })
    }

    /// The first number.
    pub fn width(self) -> u32 {
        self.width
    }

    /// The second number.
    pub fn height(self) -> u32 {
        self.height
    }
}

/// A tier of output scale, such as `1K`: a whole number and `K`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Resolution {
    kilopixels: u32,
}

impl Resolution {
    /// The tier of `kilopixels` times 1024 pixels.
    ///
    /// # Errors
    /// Where it is 0.
    pub fn new(kilopixels: u32) -> Result<Self, Error> {
        if kilopixels == 0 {
            return Err(invalid("resolution", "resolution 0K is no tier; write it as \"1K\"".into()));
        }
        Ok(Self { kilopixels })
    }

    /// The number before the `K`.
    pub fn kilopixels(self) -> u32 {
        self.kilopixels
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

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('x') {
            Some((width, height)) => Self::pixels(number("size", text, width)?, number("size", text, height)?),
            None => AspectRatio::from_str(text).map(Self::Ratio).map_err(|_| malformed("size", text)),
        }
    }
}

impl FromStr for AspectRatio {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (width, height) = text.split_once(':').ok_or_else(|| malformed("aspect_ratio", text))?;
        Self::new(number("aspect_ratio", text, width)?, number("aspect_ratio", text, height)?)
    }
}

impl FromStr for Resolution {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.strip_suffix('K').ok_or_else(|| malformed("resolution", text))?;
        Self::new(number("resolution", text, digits)?)
    }
}

/// Digits only: `u32::from_str` would take a sign.
fn number(parameter: &str, whole: &str, digits: &str) -> Result<u32, Error> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed(parameter, whole));
    }
    digits.parse().map_err(|_| malformed(parameter, whole))
}

fn malformed(parameter: &str, text: &str) -> Error {
    let form = match parameter {
        "size" => "\"1024x1024\" or \"16:9\"",
        "aspect_ratio" => "\"16:9\"",
        _ => "\"1K\"",
    };
    let shown: String = text.chars().take(40).collect();
    invalid(parameter, format!("{parameter} {shown:?} is malformed; write it as {form}"))
}

fn invalid(parameter: &str, message: String) -> Error {
    Error::new(ErrorKind::InvalidRequest, message).with_parameter(parameter)
}

macro_rules! as_string {
    ($($type:ty),*) => {$(
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }
    )*};
}

as_string!(Size, AspectRatio, Resolution);
