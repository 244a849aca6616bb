//! What can be wrong with a schema.

use std::fmt;

/// A schema that no API can be generated from: which file, where in it, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    file: String,
    problem: String,
}

impl Error {
    pub(crate) fn new(file: &str, problem: impl fmt::Display) -> Self {
        Self { file: file.into(), problem: problem.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl std::error::Error for Error {}
