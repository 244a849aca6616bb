//! Macros for literals that are checked at compile time.
//!
//! Each macro expands to a `const` item. `cargo check` evaluates a `const` item, but not an inline `const {}` block.

/// Creates a value of a generated parameter type. The value is checked at compile time.
///
/// ```
/// use lumenfall::literal;
/// use lumenfall::stable_diffusion_3_5_medium::parameters;
///
/// let n = literal!(parameters::N, 4);
/// assert_eq!(n.get(), 4);
/// ```
#[macro_export]
macro_rules! literal {
    ($parameter:ty, $value:expr) => {{
        const LITERAL: $parameter = <$parameter>::literal($value, ::core::stringify!($value));
        LITERAL
    }};
}

/// Creates a prompt for Stable Diffusion 3.5 Medium. At compile time, checks that it is not blank and not too long.
#[macro_export]
macro_rules! prompt {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::Prompt, $text)
    };
}

/// Creates a size for Stable Diffusion 3.5 Medium: pixels up to 1414x1414, such as `1024x1024`, or an aspect ratio such as
/// `16:9`.
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

/// Creates an aspect ratio for Stable Diffusion 3.5 Medium, such as `16:9`.
#[macro_export]
macro_rules! aspect_ratio {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::AspectRatio, $text)
    };
}

/// Creates a resolution tier for Stable Diffusion 3.5 Medium, such as `1K`.
#[macro_export]
macro_rules! resolution {
    ($text:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::Resolution, $text)
    };
}

/// Creates a compression level for Stable Diffusion 3.5 Medium, 0 to 100.
#[macro_export]
macro_rules! percent {
    ($value:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::OutputCompression, $value)
    };
}

/// Creates a number of images for Stable Diffusion 3.5 Medium, 1 to 10.
#[macro_export]
macro_rules! count {
    ($value:expr) => {
        $crate::literal!($crate::stable_diffusion_3_5_medium::parameters::N, $value)
    };
}
