//! What a builder's type remembers of the calls before.

/// The parameter has not been given.
#[derive(Clone, Copy, Debug)]
pub enum Unset {}

/// The parameter has been given.
#[derive(Clone, Copy, Debug)]
pub enum Given {}

/// A parameter has been given that this one cannot be combined with.
#[derive(Clone, Copy, Debug)]
pub enum Excluded {}

/// Nothing: text to image has no source to keep close to.
#[diagnostic::on_unimplemented(
    message = "`strength` is a parameter of image edit, not of text to image",
    label = "leave it out, or start the request with `.edit(…)`"
)]
pub trait StrengthInTextToImage {}
