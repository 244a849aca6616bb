//! Checks of single values, made while compiling inside [`literal!`](crate::literal).
//!
//! They panic because that is how a constant's evaluation fails to compile.
#![allow(clippy::panic, reason = "these run while compiling; `Schema::check` is the twin at run time")]

use crate::images::{AspectRatio, Resolution, Size};

/// `value`, if it is in the range.
#[track_caller]
pub const fn integer(value: i128, minimum: i128, maximum: i128, message: &'static str) -> i128 {
    if value < minimum || value > maximum {
        panic!("{}", message);
    }
    value
}

/// `value`, if it is in the range. A NaN is in none.
#[track_caller]
pub const fn number(value: f64, minimum: f64, maximum: f64, message: &'static str) -> f64 {
    if value >= minimum && value <= maximum {
        return value;
    }
    panic!("{}", message);
}

/// `text`, if it has no more characters than `max_length` and is not blank where `blank` is refused.
#[track_caller]
pub const fn text(
    text: &'static str,
    max_length: usize,
    too_long: &'static str,
    blank: Option<&'static str>,
) -> &'static str {
    let (mut characters, mut is_blank, mut rest) = (0, true, text.as_bytes());
    while let [byte, tail @ ..] = rest {
        // A byte that continues a character of UTF-8 starts with the bits 10.
        if *byte & 0xC0 != 0x80 {
            characters += 1;
        }
        is_blank = is_blank && byte.is_ascii_whitespace();
        rest = tail;
    }
    if characters > max_length {
        panic!("{}", too_long);
    }
    if let Some(message) = blank
        && is_blank
    {
        panic!("{}", message);
    }
    text
}

/// The size that `text` stands for, if it is one and is not larger than `max_size`.
#[track_caller]
pub const fn size(
    text: &'static str,
    max_size: Option<(u32, u32)>,
    malformed: &'static str,
    too_large: &'static str,
) -> Size {
    let Ok(size) = Size::parse(text) else { panic!("{}", malformed) };
    if let (Size::Pixels { width, height }, Some((max_width, max_height))) = (size, max_size)
        && (width > max_width || height > max_height)
    {
        panic!("{}", too_large);
    }
    size
}

/// The aspect ratio that `text` stands for, if it is one.
#[track_caller]
pub const fn aspect_ratio(text: &'static str, malformed: &'static str) -> AspectRatio {
    let Ok(ratio) = AspectRatio::parse(text) else { panic!("{}", malformed) };
    ratio
}

/// The resolution that `text` stands for, if it is one.
#[track_caller]
pub const fn resolution(text: &'static str, malformed: &'static str) -> Resolution {
    let Ok(resolution) = Resolution::parse(text) else { panic!("{}", malformed) };
    resolution
}
