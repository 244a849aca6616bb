//! How an image comes back, and in which file format.

use serde::{Deserialize, Serialize};

/// Whether an image comes back as a temporary address or as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ResponseFormat {
    /// A temporary address.
    #[serde(rename = "url")]
    Url,
    /// The file's bytes, inside the answer.
    #[serde(rename = "b64_json")]
    B64Json,
}

/// File format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Lossless.
    Png,
    /// Lossy.
    Jpeg,
    /// 256 colours.
    Gif,
    /// Lossy or lossless.
    Webp,
    /// Lossy.
    Avif,
}
