//! The error of the code generator.

use std::fmt;

/// A schema is invalid, or a file cannot be read or written. The message names the file and the problem.
///
/// `Debug` prints the same message as `Display`, because a `build.rs` that returns this error prints it with `Debug`.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
