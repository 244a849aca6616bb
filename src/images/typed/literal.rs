//! Checks of literals at compile time, for [`literal!`](crate::literal).
//!
//! `source` is the source code of the literal, because a `const fn` cannot format a number.
#![allow(clippy::panic, reason = "a panic is the only way to make a constant fail to compile")]
#![allow(clippy::indexing_slicing, reason = "an index out of bounds fails to compile, too")]

use crate::values::{AspectRatio, Resolution, Size};

macro_rules! integers {
    ($($function:ident -> $type:ty;)*) => {
        $(
            /// Returns `value` if it is in the range, which the type contains. `range` is the range in words.
            #[track_caller]
            pub const fn $function(
                name: &str,
                value: i128,
                source: &str,
                minimum: i128,
                maximum: i128,
                range: &str,
            ) -> $type {
                integer(name, value, source, minimum, maximum, range) as $type
            }
        )*
    };
}

integers! {
    integer_i64 -> i64;
    integer_u32 -> u32;
    integer_u64 -> u64;
}

/// Returns the value with single precision, which the sampling controls have.
pub const fn single(value: f64) -> f32 {
    value as f32
}

/// Returns `value` if it is in the range. `range` is the range in words.
#[track_caller]
const fn integer(name: &str, value: i128, source: &str, minimum: i128, maximum: i128, range: &str) -> i128 {
    if value < minimum || value > maximum {
        fail(&["`", name, "` is ", source, "; this model supports ", range]);
    }
    value
}

/// Returns `value` if it is in the range, which NaN is not. `range` is the range in words.
#[track_caller]
pub const fn number(name: &str, value: f64, source: &str, minimum: f64, maximum: f64, range: &str) -> f64 {
    if value >= minimum && value <= maximum {
        return value;
    }
    fail(&["`", name, "` is ", source, "; this model supports ", range])
}

/// Returns `text` if it has at most `max_length` characters and, if it is required, is not blank. `range` is the limit in
/// words.
#[track_caller]
pub const fn text(name: &str, text: &'static str, max_length: usize, range: &str, is_required: bool) -> &'static str {
    let (mut characters, mut is_blank, mut rest) = (0, true, text.as_bytes());
    while let [byte, tail @ ..] = rest {
        // In UTF-8, each byte after the first of a character starts with the bits 10.
        if *byte & 0xC0 != 0x80 {
            characters += 1;
        }
        is_blank = is_blank && byte.is_ascii_whitespace();
        rest = tail;
    }
    if characters > max_length {
        fail(&["`", name, "` is too long; this model supports ", range]);
    }
    if is_blank && is_required {
        fail(&["`", name, "` is blank; this model requires text"]);
    }
    text
}

/// Parses `text` and returns the size if it is at most `max_size`. `range` is the limit in words.
#[track_caller]
pub const fn size(name: &str, text: &'static str, max_size: Option<(u32, u32)>, range: &str) -> Size {
    let Ok(size) = Size::parse(text) else {
        fail(&["`", name, "` is \"", text, "\"; write \"1024x1024\" with no side of 0, or a ratio such as \"16:9\""])
    };
    if let (Size::Pixels { width, height }, Some((max_width, max_height))) = (size, max_size)
        && (width > max_width || height > max_height)
    {
        fail(&["`", name, "` is ", text, "; this model supports ", range]);
    }
    size
}

/// Parses `text` as an aspect ratio.
#[track_caller]
pub const fn aspect_ratio(name: &str, text: &'static str) -> AspectRatio {
    let Ok(ratio) = AspectRatio::parse(text) else {
        fail(&["`", name, "` is \"", text, "\"; write a ratio such as \"16:9\", with no side of 0"])
    };
    ratio
}

/// Parses `text` as a resolution tier.
#[track_caller]
pub const fn resolution(name: &str, text: &'static str) -> Resolution {
    let Ok(resolution) = Resolution::parse(text) else {
        fail(&["`", name, "` is \"", text, "\"; write a tier such as \"1K\""])
    };
    resolution
}

/// Fails to compile with the message that consists of `parts`. In a `const fn`, `panic!` accepts a single string only.
#[track_caller]
const fn fail(parts: &[&str]) -> ! {
    let mut message = [0; 512];
    let (mut length, mut part) = (0, 0);
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut index = 0;
        while index < bytes.len() {
            message[length] = bytes[index];
            (length, index) = (length + 1, index + 1);
        }
        part += 1;
    }
    match str::from_utf8(message.split_at(length).0) {
        Ok(message) => panic!("{}", message),
        Err(_) => panic!("the value is not supported by this model"),
    }
}
