//! Input images.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use super::{OutputFormat, expand_home};
use crate::error::{Error, ErrorKind};
use crate::timer;

/// An input image of an edit: PNG, JPEG, WebP or GIF.
///
/// The format is detected from the first bytes, not from the file extension.
///
/// In JSON an input is `{"path": "source.png"}`, or `{"bytes": "iVBORw0KGgo="}` with the file in Base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Input(Source);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Path(PathBuf),
    #[serde(with = "file")]
    Bytes(Bytes),
}

/// The serde form of a file in memory: Base64 in text formats, bytes in binary formats.
mod file {
    use base64_simd::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&STANDARD.encode_to_string(bytes)),
            false => bytes.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        if !deserializer.is_human_readable() {
            return Bytes::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        let decoded = STANDARD.decode_to_vec(text);
        decoded.map(Bytes::from).map_err(|_| de::Error::custom("the bytes of an image are not valid Base64"))
    }
}

impl Input {
    /// Refers to an image file, which is read when the request is sent. Remote backends stream it.
    /// A leading `~` stands for the home directory.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Source::Path(path.into()))
    }

    /// Wraps the bytes of an encoded image.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }

    /// Reads an encoded image from `reader` to its end. The bytes are kept in memory, because a retry sends them again.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), lumenfall::Error> {
    /// let input = lumenfall::Input::reader(&b"\x89PNG\r\n\x1a\n..."[..]).await?;
    /// # let _ = input;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Io`] if reading fails.
    pub async fn reader(mut reader: impl AsyncRead + Unpin) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot read the image from the reader: {error}; open the source again"))
        })?;
        Ok(Self::bytes(bytes))
    }

    /// Returns the encoded image, for backends that do not stream files.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], with the path, if the file cannot be read, and [`ErrorKind::InvalidRequest`] if the content is
    /// empty or not an image in a supported format.
    pub async fn read(&self) -> Result<Bytes, Error> {
        match self.open("image").await? {
            Opened { content: Reading::Bytes(bytes), .. } => Ok(bytes),
            Opened { content: Reading::File(mut file), name, .. } => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).await.map_err(|error| unreadable(&name, &error))?;
                Ok(bytes.into())
            }
        }
    }

    /// Opens the image and detects its format. Errors name `parameter`.
    pub(crate) async fn open(&self, parameter: &str) -> Result<Opened, Error> {
        match &self.0 {
            Source::Bytes(bytes) => {
                let name = format!("the {parameter} passed as bytes");
                let format = detect_format(bytes, &name, parameter)?;
                Ok(Opened { format, length: bytes.len() as u64, name, content: Reading::Bytes(bytes.clone()) })
            }
            Source::Path(path) => open_file(&expand_home(path), parameter).await,
        }
    }

    /// Returns the file name without its extension.
    pub(crate) fn stem(&self) -> Option<&str> {
        match &self.0 {
            Source::Path(path) => path.file_stem()?.to_str(),
            Source::Bytes(_) => None,
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Source::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// An input image whose format is known and that can be read from its start.
pub(crate) struct Opened {
    pub(crate) format: OutputFormat,
    /// The length in bytes.
    pub(crate) length: u64,
    /// The name in error messages.
    pub(crate) name: String,
    pub(crate) content: Reading,
}

pub(crate) enum Reading {
    Bytes(Bytes),
    File(File),
}

async fn open_file(path: &Path, parameter: &str) -> Result<Opened, Error> {
    timer::in_runtime()?;
    let name = path.display().to_string();
    let failed = |error: io::Error| unreadable(&name, &error).with_parameter(parameter);
    // Checked before the file is opened: opening a named pipe blocks until another process writes to it.
    if !tokio::fs::metadata(path).await.map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let mut file = File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    let mut head = Vec::with_capacity(OutputFormat::SNIFFED);
    (&mut file).take(OutputFormat::SNIFFED as u64).read_to_end(&mut head).await.map_err(failed)?;
    let format = detect_format(&head, &name, parameter)?;
    file.rewind().await.map_err(failed)?;
    Ok(Opened { format, length: metadata.len(), name, content: Reading::File(file) })
}

fn detect_format(head: &[u8], name: &str, parameter: &str) -> Result<OutputFormat, Error> {
    let problem = match OutputFormat::of(head) {
        Some(OutputFormat::Avif) => "is an AVIF image, which is supported only as an output format; convert it to PNG",
        Some(format) => return Ok(format),
        None if head.is_empty() => "is empty; pass a complete image",
        None => "is not a PNG, JPEG, WebP or GIF image; convert it to PNG",
    };
    Err(Error::new(ErrorKind::InvalidRequest, format!("{name} {problem}")).with_parameter(parameter))
}

fn unreadable(name: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read {name}: {error}; check the path and its permissions"))
}
