//! Images that go into a request.

use std::path::PathBuf;

use bytes::Bytes;

/// An image that goes into a request.
#[derive(Clone, Debug)]
pub struct Input(pub(crate) Source);

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Path(PathBuf),
    Bytes(Bytes),
}

impl Input {
    /// A file, read when the request is sent.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Source::Path(path.into()))
    }

    /// The bytes of an encoded image.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }
}
