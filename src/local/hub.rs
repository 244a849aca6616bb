//! Models from the Hugging Face Hub.

mod cache;
mod download;
mod environment;
mod files;
mod http;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lumenfall_diffusion::{LoadOptions, ModelFiles};

use super::{Local, LocalOptions};
use crate::error::{Error, ErrorKind};
use crate::values::expand_home;
use cache::Cache;
use download::Download;
use environment::Environment;
use http::Hub;

/// Downloads a model from the Hugging Face Hub and opens it. Feature `hub`. [`Local::from_hub`] creates it.
///
/// Only the files of the diffusers layout that the pipeline reads are downloaded: no single-file checkpoints, and of several
/// variants of the same weights only the one without a suffix, or else `fp16`, or else `bf16`.
///
/// The repository can change during a download, so all files are those of one commit: the one to which the revision refers
/// when the download starts. Complete files are not downloaded again, and a file that was interrupted is continued.
/// Dropping the future stops the download.
///
/// The environment variables of the Python package `huggingface_hub` set the defaults: `HF_TOKEN`, `HF_TOKEN_PATH`,
/// `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT` and `HF_HUB_OFFLINE`.
///
/// ```no_run
/// use lumenfall::local::Local;
///
/// # async fn example() -> Result<(), lumenfall::Error> {
/// let local = Local::from_hub("stabilityai/stable-diffusion-3.5-medium")
///     .on_progress(|progress| println!("{} of {} bytes", progress.received, progress.total))
///     .open()
///     .await?;
/// let client = lumenfall::Client::new(local);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct HubBuilder {
    repository: String,
    revision: String,
    token: Option<String>,
    endpoint: String,
    cache_folder: PathBuf,
    offline: bool,
    skip_t5: bool,
    on_progress: Option<OnProgress>,
}

type OnProgress = Arc<dyn Fn(HubProgress) + Send + Sync>;

/// The progress of a download from the Hugging Face Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubProgress {
    /// The file that is being downloaded, such as `vae/config.json`.
    pub file: String,
    /// How many bytes of all files were received, also by earlier downloads that were interrupted.
    pub received: u64,
    /// The size of all files in bytes, without those that were complete before.
    pub total: u64,
}

impl Local {
    /// Creates a builder for the model of a repository on the Hugging Face Hub, such as
    /// `stabilityai/stable-diffusion-3.5-medium`. It downloads the model into the cache that Python programs use.
    #[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
    pub fn from_hub(repository: impl Into<String>) -> HubBuilder {
        HubBuilder::new(repository.into())
    }
}

impl HubBuilder {
    fn new(repository: String) -> Self {
        let Environment { token, endpoint, cache_folder, offline } = Environment::read(|name| std::env::var_os(name));
        let revision = "main".into();
        Self { repository, revision, token, endpoint, cache_folder, offline, skip_t5: false, on_progress: None }
    }

    /// Sets the branch, the tag or the commit. Default: `main`.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Sets the access token, which gated models require. Default: the variable `HF_TOKEN`, or the token that `hf auth login`
    /// has stored. It is sent to the endpoint only, and not to the servers to which the endpoint redirects.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the URL of the Hub or of a mirror. Default: the variable `HF_ENDPOINT`, or `https://huggingface.co`.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = url.into();
        self
    }

    /// Sets the cache folder. A leading `~` stands for the home directory. Default: the variable `HF_HUB_CACHE`, or the folder
    /// `hub` in `HF_HOME`, or `~/.cache/huggingface/hub`.
    pub fn cache_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.cache_folder = expand_home(folder.as_ref()).into_owned();
        self
    }

    /// Sets whether only the cache is used, without any request. Default: the variable `HF_HUB_OFFLINE`, or false.
    ///
    /// A complete model in the cache is also used if the endpoint cannot be reached.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Skips T5 and its tokenizer, which are the largest part of the model. [`WithoutT5`](super::WithoutT5) describes the
    /// effect on images. If T5 is in the cache already, it is used nevertheless.
    pub fn skip_t5(mut self) -> Self {
        self.skip_t5 = true;
        self
    }

    /// Sets a callback for the progress. It is called for each part of a file that is received.
    pub fn on_progress(mut self, callback: impl Fn(HubProgress) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(Arc::new(callback));
        self
    }

    /// Downloads the files that are not in the cache, and opens the model. To open it with options, pass the folder that
    /// [`download`](Self::download) returns to [`Local::builder`].
    ///
    /// # Errors
    /// The errors of [`download`](Self::download) and of [`Local::open`].
    pub async fn open(self) -> Result<Local, Error> {
        let folder = self.download().await?;
        let name = self.repository.rsplit('/').next().unwrap_or_default().to_owned();
        Local::new(name, ModelFiles::find(folder)?, LoadOptions::default(), LocalOptions::default())
    }

    /// Downloads the files that are not in the cache, and returns the model's folder.
    ///
    /// # Errors
    /// - [`ErrorKind::Authentication`] if the licence of a gated model was not accepted, or the token is missing or invalid
    /// - [`ErrorKind::NotFound`] if the repository, the revision or, in offline mode, the model in the cache does not exist
    /// - [`ErrorKind::Model`] if the repository is not in the diffusers layout
    /// - [`ErrorKind::Configuration`] if a setting is invalid
    /// - [`ErrorKind::Io`] if a file cannot be written
    /// - [`ErrorKind::InvalidResponse`] if a file does not have the size or the hash that the Hub reported
    /// - The other kinds of a request, such as [`ErrorKind::Connection`]. The next call continues the download.
    pub async fn download(&self) -> Result<PathBuf, Error> {
        self.check_names()?;
        let cache = Cache::new(&self.cache_folder, &self.repository);
        if self.offline {
            return self.find_in(&cache);
        }
        let hub = Hub::new(&self.endpoint, self.token.as_deref(), &self.repository)?;
        let info = match hub.info(&self.revision).await {
            Ok(info) => info,
            Err(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout) => {
                return self.find_in(&cache).map_err(|_| error);
            }
            Err(error) => return Err(error),
        };
        let wanted = files::select(&info.files, self.skip_t5).map_err(|reason| self.malformed(&reason))?;
        let report = |progress| {
            if let Some(on_progress) = &self.on_progress {
                on_progress(progress);
            }
        };
        Download { hub: &hub, cache: &cache, commit: &info.commit, report: &report }.run(&wanted).await?;
        cache.write_ref(&self.revision, &info.commit)?;
        Ok(cache.snapshot(&info.commit))
    }

    /// Returns the folder of the model in the cache.
    fn find_in(&self, cache: &Cache) -> Result<PathBuf, Error> {
        let Self { repository, revision, .. } = self;
        let missing = |reason: &str| {
            let folder = self.cache_folder.display();
            let message = format!("`{repository}` at `{revision}` {reason} in the cache {folder}");
            Error::new(ErrorKind::NotFound, message + "; download it once without offline mode (`HF_HUB_OFFLINE`)")
        };
        let commit = cache.read_ref(revision).unwrap_or_else(|| revision.clone());
        let snapshot = cache.snapshot(&commit);
        let names = cache::list(&snapshot).ok_or_else(|| missing("does not exist"))?;
        files::select(&names, self.skip_t5).map_err(|reason| missing(&format!("is incomplete ({reason})")))?;
        Ok(snapshot)
    }

    /// Checks the names that become parts of URLs and paths.
    fn check_names(&self) -> Result<(), Error> {
        let is_name = |name: &str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !name.is_empty() && name.bytes().all(is_allowed) && !name.starts_with('.')
        };
        let Self { repository, revision, .. } = self;
        if !repository.split('/').all(is_name) || repository.split('/').count() != 2 {
            let message = format!("`{repository}` is not the name of a repository; write it as `owner/name`");
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        if !revision.split('/').all(is_name) {
            let message = format!("`{revision}` is not a revision; name a branch, a tag or a commit");
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(())
    }

    fn malformed(&self, reason: &str) -> Error {
        let message = format!("`{}` is not a model in the diffusers layout: {reason}", self.repository);
        Error::new(ErrorKind::Model, message + "; download its files yourself and open them with `Local::open`")
    }
}

impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("repository", &self.repository)
            .field("revision", &self.revision)
            .field("has_token", &self.token.is_some())
            .field("endpoint", &self.endpoint)
            .field("cache_folder", &self.cache_folder)
            .field("offline", &self.offline)
            .field("skip_t5", &self.skip_t5)
            .finish_non_exhaustive()
    }
}
