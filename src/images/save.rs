//! Writing a file so that it appears complete or not at all.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::backend::ByteStream;
use crate::error::{Error, ErrorKind};

/// Writes `chunks` to the file at `path`, with one chunk in memory at a time.
pub(crate) async fn stream(path: &Path, mut chunks: ByteStream) -> Result<(), Error> {
    let failed = |error| failed(path, &error);
    let mut draft = Draft::create(path).await?;
    while let Some(chunk) = chunks.next().await {
        draft.file.write_all(&chunk?).await.map_err(failed)?;
    }
    draft.file.flush().await.map_err(failed)?;
    fs::rename(&draft.path, path).await.map_err(failed)
}

/// A temporary file in the folder of the destination, because a rename is atomic only within one file system. The file is
/// deleted on drop.
struct Draft {
    file: File,
    path: PathBuf,
}

impl Draft {
    async fn create(destination: &Path) -> Result<Self, Error> {
        let destination = destination.to_owned();
        // If this future is dropped while the thread opens the file, the thread drops the `Draft` and deletes the file.
        let opened = tokio::task::spawn_blocking(move || {
            if destination.file_name().is_none() {
                return Err(failed(&destination, &io::Error::other("the path has no file name")));
            }
            // A short name, because the destination's name may have the maximum length already.
            let path = destination.with_file_name(format!(".lumenfall-{:016x}.part", fastrand::u64(..)));
            let file = std::fs::File::create_new(&path).map_err(|error| failed(&destination, &error))?;
            Ok(Self { file: file.into(), path })
        });
        opened.await.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, format!("cannot open a file: {error}"))))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is no file left to delete.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("cannot write {}: {error}", path.display()))
}
