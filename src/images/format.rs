//! How an image comes back, and in which file format.

use serde::{Deserialize, Serialize};

/// Whether an image comes back as a temporary address or as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str")]
pub enum ResponseFormat {
    /// A temporary address.
    #[serde(rename = "url")]
    Url,
    /// The file's bytes, inside the answer.
    #[serde(rename = "b64_json")]
    B64Json,
}

/// The name on the wire.
impl From<ResponseFormat> for &'static str {
    fn from(format: ResponseFormat) -> Self {
        match format {
            ResponseFormat::Url => "url",
            ResponseFormat::B64Json => "b64_json",
        }
    }
}

/// File format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", into = "&'static str")]
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

/// The name on the wire.
impl From<OutputFormat> for &'static str {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Png => "png",
            OutputFormat::Jpeg => "jpeg",
            OutputFormat::Gif => "gif",
            OutputFormat::Webp => "webp",
            OutputFormat::Avif => "avif",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_what_it_was_written_for() {
        for format in [ResponseFormat::Url, ResponseFormat::B64Json] {
            let name = serde_json::to_value(format).unwrap();
            assert_eq!(serde_json::from_value::<ResponseFormat>(name).unwrap(), format);
        }
        for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Gif, OutputFormat::Webp, OutputFormat::Avif]
        {
            let name = serde_json::to_value(format).unwrap();
            assert_eq!(serde_json::from_value::<OutputFormat>(name).unwrap(), format);
        }
    }
}
