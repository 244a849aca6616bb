//! The cache folder, which Python programs share.
//!
//! A repository has a folder with `blobs` (contents, named after their ETag), `snapshots` (per commit, links to the contents
//! under the names of the files) and `refs` (the commits of branches and tags).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind};

pub(super) struct Cache {
    repository: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(folder: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { repository: folder.join(&name), locks: folder.join(".locks").join(name) }
    }

    /// Returns the folder of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repository.join("snapshots").join(commit)
    }

    /// Returns the path of a content.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repository.join("blobs").join(etag)
    }

    /// Returns the commit to which a branch or a tag referred when it was last downloaded.
    pub(super) fn read_ref(&self, revision: &str) -> Option<String> {
        let commit = std::fs::read_to_string(self.repository.join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| !commit.is_empty())
    }

    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit {
            return Ok(());
        }
        let path = self.repository.join("refs").join(revision);
        create_parent(&path)?;
        std::fs::write(&path, commit).map_err(|error| failed("write", &path, &error))
    }

    /// Waits until no other program downloads the content. The lock is released when the file is dropped.
    pub(super) async fn lock(&self, etag: &str) -> Result<File, Error> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = File::create(&path).map_err(|error| failed("create", &path, &error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(std::fs::TryLockError::Error(error)) => return Err(failed("lock", &path, &error)),
            }
        }
    }

    /// Makes a content available under the name of a file.
    pub(super) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<(), Error> {
        let path = self.snapshot(commit).join(file);
        create_parent(&path)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &path, &error)),
            _ => {}
        }
        let levels = file.split('/').count() + 1;
        let relative = "../".repeat(levels) + "blobs/" + etag;
        link_or_move(&relative, &self.blob(etag), &path).map_err(|error| failed("link", &path, &error))
    }
}

#[cfg(unix)]
fn link_or_move(relative: &str, _: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

/// Without the right to create links, as on most Windows systems, Python programs move the file as well.
#[cfg(not(unix))]
fn link_or_move(_: &str, blob: &Path, path: &Path) -> io::Result<()> {
    std::fs::rename(blob, path)
}

/// Returns the names of the files in a snapshot, or `None` if it does not exist.
pub(super) fn list(snapshot: &Path) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(snapshot).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match std::fs::read_dir(entry.path()) {
            Ok(files) => {
                let files = files.flatten().filter(|file| file.path().is_file());
                names.extend(files.map(|file| format!("{name}/{}", file.file_name().to_string_lossy())));
            }
            Err(_) if entry.path().is_file() => names.push(name),
            Err(_) => {}
        }
    }
    names.sort();
    Some(names)
}

pub(super) fn create_parent(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|error| failed("create", parent, &error))
}

pub(super) fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    let message = format!("cannot {action} {}: {error}", path.display());
    let remedy = "check the free space and the permissions, or choose another folder with `HF_HUB_CACHE`";
    Error::new(ErrorKind::Io, format!("{message}; {remedy}"))
}
