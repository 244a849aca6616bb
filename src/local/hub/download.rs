//! Downloads of files, which continue where they were interrupted.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use sha2::{Digest as _, Sha256};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use super::HubProgress;
use super::cache::{self, Cache};
use super::http::{Hub, RemoteFile};
use crate::error::{Error, ErrorKind};

/// The number of consecutive attempts that receive nothing.
const MAX_ATTEMPTS: u32 = 5;
/// The wait before the second attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The time until the next part of a response has been received.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A download of a commit's files into the cache.
pub(super) struct Download<'a> {
    pub(super) hub: &'a Hub,
    pub(super) cache: &'a Cache,
    pub(super) commit: &'a str,
    pub(super) report: &'a (dyn Fn(HubProgress) + Sync),
}

impl Download<'_> {
    /// Downloads the files that the cache lacks.
    pub(super) async fn run(&self, names: &[String]) -> Result<(), Error> {
        let snapshot = self.cache.snapshot(self.commit);
        let mut files = Vec::new();
        for name in names.iter().filter(|name| !snapshot.join(name).is_file()) {
            files.push(self.retry(&PathBuf::new(), || self.hub.describe(self.commit, name)).await?);
        }
        let total = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let mut complete = 0;
        for file in &files {
            let report = |received| {
                let received = u64::saturating_add(complete, received);
                (self.report)(HubProgress { file: file.name.clone(), received, total });
            };
            self.file(file, &report).await?;
            complete += file.size;
        }
        Ok(())
    }

    async fn file(&self, file: &RemoteFile, report: &(dyn Fn(u64) + Sync)) -> Result<(), Error> {
        let _lock = self.cache.lock(&file.etag).await?;
        let blob = self.cache.blob(&file.etag);
        if length(&blob) != Some(file.size) {
            cache::create_parent(&blob)?;
            // Python programs use the same name, and continue such a file as well.
            let partial = self.cache.blob(&format!("{}.incomplete", file.etag));
            self.retry(&partial, || self.receive(file, &partial, report)).await?;
            self.verify(file, &partial).await?;
            std::fs::rename(&partial, &blob).map_err(|error| cache::failed("rename", &partial, &error))?;
        }
        report(file.size);
        self.cache.link(&file.etag, self.commit, &file.name)
    }

    /// Repeats a step after temporary failures. The failures before `partial` grew do not count.
    async fn retry<T, F: Future<Output = Result<T, Error>>>(
        &self,
        partial: &Path,
        step: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut failures = 0;
        loop {
            let before = length(partial);
            match step().await {
                Err(error) if error.is_transient() => {
                    failures = if length(partial) > before { 1 } else { failures + 1 };
                    if failures == MAX_ATTEMPTS {
                        return Err(error);
                    }
                    tokio::time::sleep(FIRST_WAIT * 2_u32.pow(failures - 1)).await;
                }
                result => return result,
            }
        }
    }

    /// Receives the rest of a file.
    async fn receive(&self, file: &RemoteFile, partial: &Path, report: &(dyn Fn(u64) + Sync)) -> Result<(), Error> {
        let what = format!("the file `{}`", file.name);
        let failed = |error| cache::failed("write", partial, &error);
        let mut offset = length(partial).filter(|length| *length <= file.size).unwrap_or(0);
        if offset == file.size && file.size > 0 {
            return Ok(());
        }
        let mut response = self.hub.get(self.commit, &file.name, offset).await?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        match response.status() {
            StatusCode::OK => offset = 0,
            StatusCode::PARTIAL_CONTENT if range.is_some_and(|it| it.starts_with(&format!("bytes {offset}-"))) => {}
            _ => return Err(self.hub.invalid(&what, "was sent from another position than the one that was requested")),
        }
        let mut options = OpenOptions::new();
        let options = options.create(true).write(true).truncate(offset == 0).append(offset > 0);
        let mut output = options.open(partial).await.map_err(failed)?;
        let mut received = offset;
        let result = loop {
            let chunk = match tokio::time::timeout(IDLE_TIMEOUT, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break Ok(()),
                Ok(Err(error)) => break Err(self.hub.disconnected(&what, error)),
                Err(_) => break Err(self.hub.timeout(&what)),
            };
            received += chunk.len() as u64;
            if received > file.size {
                break Err(self.discard(file, partial, "is longer than the Hub reported"));
            }
            output.write_all(&chunk).await.map_err(failed)?;
            report(received);
        };
        // Otherwise the last parts might be written after the next attempt has begun.
        output.flush().await.map_err(failed)?;
        result?;
        if received < file.size {
            let reason = "the response was truncated; try again later";
            return Err(self.hub.error(ErrorKind::Connection, &what, reason));
        }
        Ok(())
    }

    /// Compares the hash of a large file, whose ETag is its hash.
    async fn verify(&self, file: &RemoteFile, partial: &Path) -> Result<(), Error> {
        let is_hash = file.etag.len() == 64 && file.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Ok(());
        }
        let failed = |error| cache::failed("read", partial, &error);
        let mut input = File::open(partial).await.map_err(failed)?.into_std().await;
        let hash = tokio::task::spawn_blocking(move || {
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
            loop {
                let count = input.read(&mut buffer)?;
                match buffer.get(..count) {
                    Some([]) | None => return Ok(hash.finalize()),
                    Some(part) => hash.update(part),
                }
            }
        });
        let hash = hash.await.map_err(|error| Error::new(ErrorKind::Compute, error.to_string()))?.map_err(failed)?;
        let is_equal = format!("{hash:x}").eq_ignore_ascii_case(&file.etag);
        if is_equal { Ok(()) } else { Err(self.discard(file, partial, "does not have the hash that the Hub reported")) }
    }

    /// Removes a corrupt file, so that the next download starts again.
    fn discard(&self, file: &RemoteFile, partial: &Path, reason: &str) -> Error {
        match std::fs::remove_file(partial) {
            Ok(()) => self.hub.invalid(&format!("the file `{}`", file.name), reason),
            Err(error) => cache::failed("remove", partial, &error),
        }
    }
}

fn length(path: &Path) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.len())
}
