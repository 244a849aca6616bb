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
        Self::parse(text).map_err(|fault| fault.error("size", text))
    }
}

impl FromStr for AspectRatio {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|fault| fault.error("aspect_ratio", text))
    }
}

impl FromStr for Resolution {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|fault| fault.error("resolution", text))
    }
}

/// Why a text is no size, aspect ratio or resolution.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Malformed,
    Zero,
}

impl Fault {
    fn error(self, parameter: &str, text: &str) -> Error {
        let problem = match self {
            Self::Malformed => "is malformed",
            Self::Zero => "has a side of 0",
        };
        malformed(parameter, text, problem)
    }
}

// One reader for literals, which are read while compiling, and for text at run time.
impl Size {
    pub(crate) const fn parse(text: &str) -> Result<Self, Fault> {
        match split(text.as_bytes(), b'x') {
            Some((width, height)) => match numbers(width, height) {
                Ok((width, height)) => Ok(Self::Pixels { width, height }),
                Err(fault) => Err(fault),
            },
            None => match AspectRatio::parse(text) {
                Ok(ratio) => Ok(Self::Ratio(ratio)),
                Err(fault) => Err(fault),
            },
        }
    }
}

impl AspectRatio {
    pub(crate) const fn parse(text: &str) -> Result<Self, Fault> {
        let Some((width, height)) = split(text.as_bytes(), b':') else { return Err(Fault::Malformed) };
        match numbers(width, height) {
            Ok((width, height)) => Ok(Self { width, height }),
            Err(fault) => Err(fault),
        }
    }
}

impl Resolution {
    pub(crate) const fn parse(text: &str) -> Result<Self, Fault> {
        let Some((digits, [])) = split(text.as_bytes(), b'K') else { return Err(Fault::Malformed) };
        match number(digits) {
            Some(0) => Err(Fault::Zero),
            Some(kilopixels) => Ok(Self { kilopixels }),
            None => Err(Fault::Malformed),
        }
    }
}

/// What is before and after the first `separator`.
const fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while at < text.len() {
        let (before, rest) = text.split_at(at);
        if let [byte, after @ ..] = rest
            && *byte == separator
        {
            return Some((before, after));
        }
        at += 1;
    }
    None
}

const fn numbers(first: &[u8], second: &[u8]) -> Result<(u32, u32), Fault> {
    match (number(first), number(second)) {
        (Some(0), Some(_)) | (Some(_), Some(0)) => Err(Fault::Zero),
        (Some(first), Some(second)) => Ok((first, second)),
        _ => Err(Fault::Malformed),
    }
}

/// Digits only: `u32::from_str` would take a sign, and is not `const`.
const fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    let (mut rest, mut value) = (digits, 0u32);
    while let [digit, tail @ ..] = rest {
        if !digit.is_ascii_digit() {
            return None;
        }
        let Some(tens) = value.checked_mul(10) else { return None };
        let Some(sum) = tens.checked_add((*digit - b'0') as u32) else { return None };
        (value, rest) = (sum, tail);
    }
    Some(value)
}

fn malformed(parameter: &str, text: &str, problem: &str) -> Error {
    let form = match parameter {
        "size" => "\"1024x1024\" or \"16:9\"",
        "aspect_ratio" => "\"16:9\"",
        _ => "\"1K\"",
    };
    let shown: String = text.chars().take(40).collect();
    invalid(parameter, format!("{parameter} {shown:?} {problem}; write it as {form}"))
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
