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
