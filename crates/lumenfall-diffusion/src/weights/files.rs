//! Access to a model's files, in a folder or embedded in the program.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A file of an embedded model: its path in the model folder and its content.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// The files of a model.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// A folder in the layout of the diffusers library.
    Folder(PathBuf),
    /// Files in the same layout, embedded in the program.
    Embedded(&'static [EmbeddedFile]),
}

impl ModelFiles {
    /// Returns the path of a file, for error messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Embedded(_) => PathBuf::from(name),
        }
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Embedded(files) => files.iter().any(|(path, _)| *path == name),
        }
    }

    pub(crate) fn open(&self, name: &str) -> Result<RandomAccess> {
        let path = self.path(name);
        match self {
            Self::Folder(_) => match File::open(&path) {
                Ok(file) => {
                    let length = file.metadata().map_err(|source| read_error(&path, source))?.len();
                    Ok(RandomAccess { path, length, bytes: Bytes::File(Mutex::new(file)) })
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(path)),
                Err(error) => Err(read_error(&path, error)),
            },
            Self::Embedded(files) => match files.iter().find(|(known, _)| *known == name) {
                Some((_, bytes)) => Ok(RandomAccess { path, length: bytes.len() as u64, bytes: Bytes::Static(bytes) }),
                None => Err(missing(path)),
            },
        }
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.open(name)?;
        let mut bytes = vec![0; usize::try_from(file.length).unwrap_or(usize::MAX)];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(|error| {
            Error::malformed(self.path(name), format!("is not valid JSON for this file: {error}; download it again"))
        })
    }
}

/// A file with random access, so that weights need not be in memory twice.
#[derive(Debug)]
pub(crate) struct RandomAccess {
    pub(crate) path: PathBuf,
    pub(crate) length: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    File(Mutex<File>),
    Static(&'static [u8]),
}

impl RandomAccess {
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.bytes {
            Bytes::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_exact(buffer))
                    .map_err(|source| read_error(&self.path, source))
            }
            Bytes::Static(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
                let part = part.ok_or_else(|| Error::malformed(&self.path, "is truncated; embed the complete file"))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

fn read_error(path: &Path, source: std::io::Error) -> Error {
    Error::File { action: "read", path: path.to_path_buf(), source }
}

fn missing(path: PathBuf) -> Error {
    Error::MissingFile {
        path,
        remedy: "a model folder in the diffusers layout contains transformer/, vae/, scheduler/, text_encoder/, \
                 text_encoder_2/, tokenizer/, tokenizer_2/ and optionally text_encoder_3/ and tokenizer_3/; \
                 download the missing file"
            .into(),
    }
}
