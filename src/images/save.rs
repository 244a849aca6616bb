//! Writing a file so that it appears whole or not at all.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

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
        let target = target.to_owned();
        // The thread that opens the file also makes its owner: where this call is dropped meanwhile, the file goes with it.
        let opened = tokio::task::spawn_blocking(move || Self::open(target)).await;
        opened.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, format!("cannot open a file: {error}"))))
    }

    fn open(target: PathBuf) -> Result<Self, Error> {
        if target.file_name().is_none() {
            return Err(failed(&target, &io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")));
        }
        // Drawn, since another container may have the same process id, and short, since names have a longest length.
        let drawn = RandomState::new().build_hasher().finish();
        let path = target.with_file_name(format!(".lumenfall-{drawn:016x}.part"));
        let file = std::fs::File::options().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| failed(&target, &error))?;
        Ok(Self { file: file.into(), path, target })
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
