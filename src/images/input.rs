//! Images that go into a request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use super::{OutputFormat, fetch};
use crate::Client;
use crate::error::{Error, ErrorKind};

/// 64 MiB.
const MOST_ROOM: u64 = 64 << 20;

/// An image that goes into a request: PNG, JPEG, WebP or GIF.
///
/// Its media type is told by its first bytes, whatever the file is called.
///
/// ```
/// use lumenfall::Input;
///
/// let file = Input::path("source.png");
/// let bytes = Input::bytes(&b"\x89PNG..."[..]);
/// # let _ = (file, bytes);
/// ```
#[derive(Clone)]
pub struct Input(pub(crate) Source);

#[derive(Clone)]
pub(crate) enum Source {
    Path(PathBuf),
    Bytes(Bytes),
}

impl Input {
    /// A file, read when the request is sent. A remote backend streams it.
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Source::Path(path.into()))
    }

    /// The bytes of an encoded image.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Bytes(bytes.into()))
    }

    /// What `reader` brings, read whole: a request may have to be sent again, and a reader reads once.
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
    /// [`ErrorKind::Io`] where the reader fails.
    pub async fn reader(mut reader: impl AsyncRead + Unpin) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.map_err(|error| {
            Error::new(ErrorKind::Io, format!("cannot read the image from its reader: {error}; open it again"))
        })?;
        Ok(Self::bytes(bytes))
    }

    /// The image at an address, fetched through `client`'s own HTTP client and proxy, without its key.
    ///
    /// ```no_run
    /// # async fn run(client: lumenfall::Client) -> Result<(), lumenfall::Error> {
    /// let source = lumenfall::Input::fetch(&client, "https://example.com/source.png").await?;
    /// client.images().edit(source).prompt(lumenfall::prompt!("add a starry night sky")).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the address cannot be fetched; [`ErrorKind::Unsupported`] where the client's backend fetches nothing.
    pub async fn fetch(client: &Client, address: &str) -> Result<Self, Error> {
        fetch::bytes(&**client.backend(), address).await.map(Self::bytes)
    }

    /// The whole image in memory, for backends that do not stream.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the file cannot be read, which names it; [`ErrorKind::InvalidRequest`] where
    /// it is empty or no image.
    pub async fn read(&self) -> Result<Bytes, Error> {
        match self.open("image").await? {
            Opened { content: Reading::Bytes(bytes), .. } => Ok(bytes),
            Opened { content: Reading::File(mut file), length, name, .. } => {
                // A file can state any length: no more room than this is made on its word alone.
                let mut bytes = Vec::with_capacity(length.min(MOST_ROOM) as usize);
                file.read_to_end(&mut bytes).await.map_err(|error| unreadable(&name, &error))?;
                Ok(bytes.into())
            }
        }
    }

    /// Opens the image and tells its format, for the parameter `parameter`.
    pub(crate) async fn open(&self, parameter: &str) -> Result<Opened, Error> {
        match &self.0 {
            Source::Bytes(bytes) => {
                let name = format!("the {parameter} given as bytes");
                let format = sniff(bytes, &name, parameter)?;
                Ok(Opened { format, length: bytes.len() as u64, name, content: Reading::Bytes(bytes.clone()) })
            }
            Source::Path(path) => open_file(path, parameter).await,
        }
    }

    /// The file's name without its ending.
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

/// An image that is ready to be read.
pub(crate) struct Opened {
    pub(crate) format: OutputFormat,
    pub(crate) length: u64,
    /// What to call it in a message.
    pub(crate) name: String,
    pub(crate) content: Reading,
}

pub(crate) enum Reading {
    Bytes(Bytes),
    File(File),
}

async fn open_file(path: &Path, parameter: &str) -> Result<Opened, Error> {
    let name = path.display().to_string();
    let failed = |error: io::Error| unreadable(&name, &error).with_parameter(parameter);
    let mut file = File::open(path).await.map_err(failed)?;
    let about = file.metadata().await.map_err(failed)?;
    if !about.is_file() {
        return Err(failed(io::Error::other("it is no file")));
    }
    let mut head = Vec::with_capacity(OutputFormat::SNIFFED);
    (&mut file).take(OutputFormat::SNIFFED as u64).read_to_end(&mut head).await.map_err(failed)?;
    let format = sniff(&head, &name, parameter)?;
    file.rewind().await.map_err(failed)?;
    Ok(Opened { format, length: about.len(), name, content: Reading::File(file) })
}

fn sniff(head: &[u8], name: &str, parameter: &str) -> Result<OutputFormat, Error> {
    let format = OutputFormat::of(head);
    // The API takes no AVIF, though it makes some.
    format.filter(|format| *format != OutputFormat::Avif).ok_or_else(|| {
        let why = match (head, format) {
            ([], _) => "is empty; give a whole image",
            (_, Some(_)) => "is an AVIF image, which no service takes; convert it to PNG first",
            (_, None) => "is no PNG, JPEG, WebP or GIF image; convert it to PNG first",
        };
        Error::new(ErrorKind::InvalidRequest, format!("{name} {why}")).with_parameter(parameter)
    })
}

fn unreadable(name: &str, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot read {name}: {error}; check the path and its permissions"))
}
