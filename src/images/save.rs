//! Writing a file so that it appears whole or not at all.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::backend::ByteStream;
use crate::error::{Error, ErrorKind};

/// Writes `bytes` to `path`.
pub(crate) async fn bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut draft = Draft::create(path).await?;
    draft.write(bytes).await?;
    draft.publish().await
}

/// Writes what `stream` brings to `path`, holding one piece of it in memory at a time.
pub(crate) async fn stream(path: &Path, mut stream: ByteStream) -> Result<(), Error> {
    let mut draft = Draft::create(path).await?;
    while let Some(piece) = stream.next().await {
        draft.write(&piece?).await?;
    }
    draft.publish().await
}

/// A temporary file in the folder of its future place: a rename works only within one file system.
struct Draft {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl Draft {
    async fn create(target: &Path) -> Result<Self, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let name = target
            .file_name()
            .ok_or_else(|| failed(target, &io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")))?;
        let mut draft_name = OsString::from(".");
        draft_name.push(name);
        draft_name.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let path = target.with_file_name(draft_name);
        let file =
            File::options().write(true).create_new(true).open(&path).await.map_err(|error| failed(target, &error))?;
        Ok(Self { file, path, target: target.to_owned() })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).await.map_err(|error| failed(&self.target, &error))
    }

    async fn publish(mut self) -> Result<(), Error> {
        self.file.flush().await.map_err(|error| failed(&self.target, &error))?;
        fs::rename(&self.path, &self.target).await.map_err(|error| failed(&self.target, &error))
    }
}

impl Drop for Draft {
    /// After a rename there is nothing left under this name, and the failure means nothing.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write {}: {error}", path.display()))
}
