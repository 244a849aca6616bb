//! What can go wrong in the native pipeline.

use std::path::{Path, PathBuf};

/// Shorthand for a result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong, each naming the file, tensor or parameter at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A part of the model folder is not there.
    #[error("the model has no {path}: {remedy}", path = path.display())]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}; check that it is whole and may be read", path = path.display())]
    File {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file of the model is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A tensor is missing, of the wrong shape or not finite.
    #[error("{path}: tensor `{tensor}` {reason}", path = path.display())]
    Tensor {
        /// The weight file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A parameter of the request cannot be used.
    #[error("`{parameter}` {reason}")]
    Parameter {
        /// The parameter's name.
        parameter: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// An image could not be decoded or encoded.
    #[error("{0}")]
    Image(String),
    /// The prompt could not be turned into tokens.
    #[error("{0}")]
    Tokenizer(String),
    /// The computation gave numbers that are no image.
    #[error("{0}")]
    NotFinite(String),
    /// The work was stopped because nobody waits for it any more.
    #[error("the work was cancelled")]
    Cancelled,
    /// The tensor library failed.
    #[error("the tensor computation failed: {0}; take all the model's files from one source, or report a defect")]
    Compute(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn malformed(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn parameter(parameter: &'static str, reason: impl Into<String>) -> Self {
        Self::Parameter { parameter, reason: reason.into() }
    }
}
