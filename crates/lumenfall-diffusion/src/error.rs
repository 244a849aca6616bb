//! The error type of the pipeline.

use std::path::{Path, PathBuf};

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the pipeline. Each message names the file, tensor or parameter at fault and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A required file of the model does not exist.
    #[error("the model has no {path}: {remedy}", path = path.display())]
    MissingFile {
        /// The path of the missing file.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A file could not be read.
    #[error("cannot {action} {path}: {source}; check that the file is complete and readable", path = path.display())]
    File {
        /// The failed operation, such as `read`.
        action: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of the model is corrupt or belongs to a model that is not supported.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The problem and what to do about it.
        reason: String,
    },
    /// A tensor is missing, has the wrong shape, or contains a value that is not finite.
    #[error("{path}: tensor `{tensor}` {reason}", path = path.display())]
    Tensor {
        /// The path of the weight file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The problem and what to do about it.
        reason: String,
    },
    /// A parameter of the request is invalid.
    #[error("`{parameter}` {reason}")]
    Parameter {
        /// The parameter's name.
        parameter: &'static str,
        /// The problem and what to do about it.
        reason: String,
    },
    /// An image could not be decoded, encoded or resized.
    #[error("{0}")]
    Image(String),
    /// The prompt could not be converted to tokens.
    #[error("{0}")]
    Tokenizer(String),
    /// The model produced values that are NaN or infinite.
    #[error("{0}")]
    NotFinite(String),
    /// The request needs more memory than it may use.
    #[error("the request needs {needed_gib:.2} GiB of {memory}, but only {available_gib:.2} GiB may be used: {remedy}")]
    Memory {
        /// Which memory: `memory`, or that of a GPU.
        memory: String,
        /// The least memory that suffices, in GiB.
        needed_gib: f64,
        /// The memory that may be used, in GiB.
        available_gib: f64,
        /// What to do about it.
        remedy: String,
    },
    /// The caller cancelled the request.
    #[error("the request was cancelled")]
    Cancelled,
    /// A GPU lacks memory, was lost, or cannot be used.
    #[error("{0}")]
    Device(String),
    /// A tensor operation failed.
    #[error("a tensor operation failed: {0}; download all model files from one source, or report a bug")]
    Compute(String),
}

impl Error {
    pub(crate) fn malformed(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn parameter(parameter: &'static str, reason: impl Into<String>) -> Self {
        Self::Parameter { parameter, reason: reason.into() }
    }
}
