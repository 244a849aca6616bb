//! Writing a file so that it appears complete or not at all.

use std::io;
use std::path::{Component, Path, PathBuf};

use futures_util::StreamExt;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::backend::ByteStream;
use crate::error::{Error, ErrorKind};
use crate::timer;
use crate::values::OutputFormat;

/// The file extension of an image whose format is unknown.
const UNKNOWN_EXTENSION: &str = "bin";

/// Writes `chunks` to the file at `path`, with one chunk in memory at a time. Returns the format of the content.
pub(crate) async fn stream(path: &Path, chunks: ByteStream) -> Result<Option<OutputFormat>, Error> {
    if path.file_name().is_none() {
        return Err(failed(path, &io::Error::other("the path has no file name")));
    }
    timer::in_runtime()?;
    let target = destination(path).await.map_err(|error| failed(path, &error))?;
    let draft = Draft::write(target.parent().unwrap_or(Path::new("")), path, chunks).await?;
    let format = draft.format();
    draft.rename(&target).await?;
    Ok(format)
}

/// Returns the file that a path stands for: that of a symbolic link. Devices, pipes and folders are refused, because the rename would
/// replace them.
async fn destination(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path).await {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("it exists and is not a regular file")),
        Ok(_) if fs::symlink_metadata(path).await?.is_symlink() => fs::canonicalize(path).await,
        _ => Ok(path.to_owned()),
    }
}

/// Like [`stream`], to the file `stem` in `folder` with the extension of the content's format.
pub(crate) async fn stream_as(folder: &Path, stem: &str, chunks: ByteStream) -> Result<PathBuf, Error> {
    timer::in_runtime()?;
    let draft = Draft::write(folder, &folder.join(stem), chunks).await?;
    let extension = draft.format().map_or(UNKNOWN_EXTENSION, OutputFormat::extension);
    let path = folder.join(format!("{stem}.{extension}"));
    draft.rename(&path).await?;
    Ok(path)
}

/// Checks that a file whose name starts with `stem` is in the folder to which the name is appended.
pub(crate) fn check_stem(stem: &str) -> Result<(), Error> {
    let mut components = Path::new(stem).components();
    let is_name =
        matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == stem);
    if is_name && !stem.contains(['/', '\\', '\0']) {
        return Ok(());
    }
    let shown: String = stem.chars().take(40).collect();
    let message = format!("`stem` is {shown:?}; it must be a file name without folders and without an extension");
    Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("stem"))
}

/// Creates the folder at `path` and its parents, unless they exist.
pub(crate) async fn create_folder(path: &Path) -> Result<(), Error> {
    timer::in_runtime()?;
    fs::create_dir_all(path)
        .await
        .map_err(|error| Error::new(ErrorKind::Io, format!("cannot create the folder {}: {error}", path.display())))
}

/// A temporary file in the folder of the destination, because a rename is atomic only within one file system. The file is
/// deleted on drop.
struct Draft {
    file: File,
    path: PathBuf,
    /// The first bytes of the content.
    head: Vec<u8>,
}

impl Draft {
    /// Writes `chunks` to a temporary file in `folder`. Errors name `destination`.
    async fn write(folder: &Path, destination: &Path, mut chunks: ByteStream) -> Result<Self, Error> {
        let failed = |error| failed(destination, &error);
        let mut draft = Self::create(folder.to_owned(), destination.to_owned()).await?;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            let missing = OutputFormat::SNIFFED.saturating_sub(draft.head.len());
            draft.head.extend(chunk.iter().take(missing));
            draft.file.write_all(&chunk).await.map_err(failed)?;
        }
        draft.file.flush().await.map_err(failed)?;
        Ok(draft)
    }

    async fn create(folder: PathBuf, destination: PathBuf) -> Result<Self, Error> {
        // If this future is dropped while the thread opens the file, the thread drops the `Draft` and deletes the file.
        let opened = tokio::task::spawn_blocking(move || {
            // A short name, because the destination's name may have the maximum length already.
            let path = folder.join(format!(".lumenfall-{:016x}.part", fastrand::u64(..)));
            let file = std::fs::File::create_new(&path).map_err(|error| failed(&destination, &error))?;
            Ok(Self { file: file.into(), path, head: Vec::new() })
        });
        opened.await.unwrap_or_else(|error| Err(Error::new(ErrorKind::Io, format!("cannot open a file: {error}"))))
    }

    /// Returns the format of the content, if it is known.
    fn format(&self) -> Option<OutputFormat> {
        OutputFormat::of(&self.head)
    }

    /// Moves the file to `path`, and replaces an existing file.
    async fn rename(self, path: &Path) -> Result<(), Error> {
        fs::rename(&self.path, path).await.map_err(|error| failed(path, &error))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_is_the_name_of_a_file() {
        for stem in ["lighthouse", "v1.5", ".hidden", "..dots", "a b", "ä", "~"] {
            assert!(check_stem(stem).is_ok(), "{stem:?}");
        }
        for stem in ["", ".", "..", "a/b", "a/", "/a", "../a", "./a", "a\\b", "a\0"] {
            let error = check_stem(stem).unwrap_err();
            assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("stem")), "{stem:?}");
        }
    }
}
