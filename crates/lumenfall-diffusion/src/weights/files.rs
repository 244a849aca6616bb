//! Access to a model's files, in a folder or embedded in the program.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::num::NonZeroU64;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::de::DeserializeOwned;

use super::layout::PartKind;
use crate::error::{Error, Result};

/// The longest file that is read completely. The longest that a model has is the tokenizer of T5, with 2 MB.
const MAX_WHOLE_BYTES: u64 = 64 << 20;

/// A file of an embedded model: its path in the model folder and its content.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// The files of a model.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// A folder in the layout of the diffusers library.
    Folder(PathBuf),
    /// Files in the same layout, embedded in the program.
    Embedded(&'static [EmbeddedFile]),
    /// One file for each part, or one file for several parts, in any supported layout.
    Parts(PartFiles),
}

/// The files of a model's parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartFiles(BTreeMap<PartKind, PathBuf>);

impl PartFiles {
    /// Sets the file that contains a part.
    pub fn set(&mut self, part: PartKind, path: impl Into<PathBuf>) {
        self.0.insert(part, path.into());
    }

    /// Returns the file that contains a part.
    pub fn path(&self, part: PartKind) -> Option<&Path> {
        self.0.get(&part).map(PathBuf::as_path)
    }

    /// Returns all parts with their files.
    pub fn iter(&self) -> impl Iterator<Item = (PartKind, &Path)> {
        self.0.iter().map(|(part, path)| (*part, path.as_path()))
    }
}

impl ModelFiles {
    /// Returns the path of a file, for error messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(name),
            Self::Embedded(_) | Self::Parts(_) => PathBuf::from(name),
        }
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_file(),
            Self::Embedded(files) => files.iter().any(|(path, _)| *path == name),
            Self::Parts(_) => false,
        }
    }

    /// Returns an error that names all of these files that do not exist.
    pub(crate) fn check_exist(&self, names: &[String]) -> Result<()> {
        let is_missing = |name: &&String| match self {
            Self::Folder(folder) => {
                matches!(std::fs::metadata(folder.join(name)), Err(error) if error.kind() == ErrorKind::NotFound)
            }
            Self::Embedded(_) | Self::Parts(_) => !self.exists(name),
        };
        let paths: Vec<_> = names.iter().filter(is_missing).map(|name| self.path(name).display().to_string()).collect();
        if paths.is_empty() { Ok(()) } else { Err(missing(paths.join(", ").into())) }
    }

    /// Returns whether the model has any file in a folder.
    pub(crate) fn has_folder(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).is_dir(),
            Self::Embedded(files) => files.iter().any(|(path, _)| path.split('/').next() == Some(name)),
            Self::Parts(_) => false,
        }
    }

    pub(crate) fn open(&self, name: &str) -> Result<RandomAccess> {
        let path = self.path(name);
        match self {
            Self::Folder(_) => open_or_missing(&path),
            Self::Embedded(files) => match files.iter().find(|(known, _)| *known == name) {
                Some((_, bytes)) => {
                    Ok(RandomAccess { path, length: bytes.len() as u64, bytes: Bytes::Memory(Cow::Borrowed(bytes)) })
                }
                None => Err(missing(path)),
            },
            Self::Parts(_) => Err(missing(path)),
        }
    }

    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.open(name)?;
        if file.length > MAX_WHOLE_BYTES {
            let length = file.length;
            let reason = format!("has {length} bytes, but at most {MAX_WHOLE_BYTES} are supported; download it again");
            return Err(Error::malformed(self.path(name), reason));
        }
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
    File(File),
    Memory(Cow<'static, [u8]>),
}

impl RandomAccess {
    /// Opens a file. A folder, a named pipe or a device is refused: reading it could wait forever.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| read_error(path, source))?;
        if !metadata.is_file() {
            return Err(Error::malformed(
                path,
                "is a folder, a pipe or a device instead of a file; download the file or specify another one",
            ));
        }
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        Ok(Self { path: path.to_path_buf(), length: metadata.len(), bytes: Bytes::File(file) })
    }

    /// Creates a file in memory.
    #[cfg(any(test, feature = "_fuzz"))]
    pub(crate) fn in_memory(bytes: &[u8]) -> Self {
        Self { path: "file".into(), length: bytes.len() as u64, bytes: Bytes::Memory(bytes.to_vec().into()) }
    }

    /// Returns the time of the last change, if the file system knows it.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match &self.bytes {
            Bytes::File(file) => file.metadata().ok()?.modified().ok(),
            Bytes::Memory(_) => None,
        }
    }

    /// Lets the operating system read a range into its cache of files, because it is needed soon.
    pub(crate) fn read_ahead(&self, offset: u64, length: u64) {
        if let Bytes::File(file) = &self.bytes {
            read_ahead(file, offset, length);
        }
    }

    /// Fills a buffer with the bytes at an offset. Threads can read at the same time.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.bytes {
            Bytes::File(file) => read_exact_at(file, offset, buffer).map_err(|source| read_error(&self.path, source)),
            Bytes::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
                let part = part.ok_or_else(|| Error::malformed(&self.path, "is truncated; embed the complete file"))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = buffer.split_at_mut(count).1;
                offset += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The number of bytes that are read ahead at a time. Linux ignores what exceeds this in one call.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// Lets the operating system read a range into its cache of files. An error occurs again when the range is read.
fn read_ahead(file: &File, offset: u64, length: u64) {
    let end = offset.saturating_add(length);
    for start in (offset..end).step_by(READ_AHEAD_BYTES as usize) {
        if read_part_ahead(file, start, READ_AHEAD_BYTES.min(end - start)).is_err() {
            return;
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn read_part_ahead(file: &File, offset: u64, length: u64) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, offset, NonZeroU64::new(length), rustix::fs::Advice::WillNeed)?)
}

/// Without a call for this purpose, the range is read, and its content ignored.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn read_part_ahead(file: &File, offset: u64, length: u64) -> io::Result<()> {
    read_exact_at(file, offset, &mut vec![0; length as usize])
}

fn read_error(path: &Path, source: io::Error) -> Error {
    Error::File { action: "read", path: path.to_path_buf(), source }
}

fn open_or_missing(path: &Path) -> Result<RandomAccess> {
    RandomAccess::open(path).map_err(|error| match error {
        Error::File { source, .. } if source.kind() == ErrorKind::NotFound => missing(path.to_path_buf()),
        error => error,
    })
}

fn missing(path: PathBuf) -> Error {
    Error::MissingFile {
        path,
        remedy: "a model folder in the diffusers layout contains transformer/, vae/, scheduler/, text_encoder/, \
                 text_encoder_2/, tokenizer/, tokenizer_2/ and optionally text_encoder_3/ and tokenizer_3/; \
                 download the missing files"
            .into(),
    }
}
