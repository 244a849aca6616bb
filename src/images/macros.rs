//! Literals that are checked while compiling.
//!
//! `cargo check` evaluates a `const` item, but not an inline `const {}` block; so each of these
//! macros makes an item.

/// A value of a generated parameter, checked while compiling.
///
/// ```
/// use lumenfall::literal;
/// use lumenfall::stable_diffusion_3_5_medium::parameters;
///
/// let n = literal!(parameters::N, 4);
/// assert_eq!(n.get(), 4);
/// ```
///
/// ```compile_fail
/// # use lumenfall::{literal, stable_diffusion_3_5_medium::parameters};
/// let n = literal!(parameters::N, 11);
/// ```
#[macro_export]
macro_rules! literal {
    ($parameter:ty, $value:expr) => {{
        const LITERAL: $parameter = <$parameter>::literal($value);
        LITERAL
    }};
}

/// A prompt for Stable Diffusion 3.5 Medium: not blank, and no longer than it allows.
///
/// ```
/// let prompt = lumenfall::prompt!("a lighthouse in fog");
/// ```
#[macro_export]
macro_rules! prompt {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::Prompt, $text)
    };
}

/// A size for Stable Diffusion 3.5 Medium: `1024x1024`, up to 1414x1414, or `16:9`.
///
/// ```
/// let size = lumenfall::size!("1024x768");
/// ```
///
/// ```compile_fail
/// let size = lumenfall::size!("2048x2048");
/// ```
#[macro_export]
macro_rules! size {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::Size, $text)
    };
}

/// An aspect ratio for Stable Diffusion 3.5 Medium, such as `16:9`.
///
/// ```
/// let shape = lumenfall::aspect_ratio!("16:9");
/// ```
#[macro_export]
macro_rules! aspect_ratio {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::AspectRatio, $text)
    };
}

/// A tier of output scale for Stable Diffusion 3.5 Medium, such as `1K`.
///
/// ```
/// let scale = lumenfall::resolution!("1K");
/// ```
#[macro_export]
macro_rules! resolution {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::Resolution, $text)
    };
}

/// A compression level for Stable Diffusion 3.5 Medium, 0 to 100.
///
/// ```
/// let level = lumenfall::percent!(80);
/// ```
#[macro_export]
macro_rules! percent {
    ($value:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::OutputCompression, $value)
    };
}

/// How many images Stable Diffusion 3.5 Medium is to make, 1 to 10.
///
/// ```
/// let n = lumenfall::count!(2);
/// ```
#[macro_export]
macro_rules! count {
    ($value:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::N, $value)
    };
}
