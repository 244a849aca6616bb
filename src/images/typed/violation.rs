//! What a spec does that its model's schema does not allow.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A broken rule: which parameter, which rule, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    parameter: String,
    rule: Rule,
    message: String,
}

impl Violation {
    #[cold]
    pub(crate) fn new(parameter: impl Into<String>, rule: Rule, message: impl Into<String>) -> Self {
        Self { parameter: parameter.into(), rule, message: message.into() }
    }

    /// The parameter at fault.
    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// The rule that is broken.
    pub fn rule(&self) -> Rule {
        self.rule
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::new(ErrorKind::InvalidRequest, violation.message).with_parameter(violation.parameter)
    }
}

/// The rules that a schema can state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The request names another model.
    Model,
    /// The model, or one of its parameters, is not there in this mode.
    Mode,
    /// The provider does not run the model in this mode.
    Provider,
    /// A required parameter is missing, or blank.
    Required,
    /// The model has no such parameter.
    Unknown,
    /// The value is of another type.
    Type,
    /// The value is not one of the words listed.
    Choice,
    /// The number is too small or too large.
    Range,
    /// The text is too long.
    Length,
    /// The text is not a size, an aspect ratio or a resolution.
    Format,
    /// The size is larger than the model allows.
    MaxSize,
    /// Two parameters exclude each other.
    Exclusive,
    /// Another parameter does not have the value that this one needs.
    Requires,
    /// `extra` holds a name that has a field of its own.
    Extra,
}
