//! States of a builder's type parameters, which record the parameters that are set.

/// The parameter is not set.
#[derive(Clone, Copy, Debug)]
pub enum Unset {}

/// The parameter is set.
#[derive(Clone, Copy, Debug)]
pub enum Set {}

/// A parameter is set that excludes this one.
#[derive(Clone, Copy, Debug)]
pub enum Excluded {}
