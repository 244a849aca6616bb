//! Encoded prompts on disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::options::{Reading, Texts};
use super::recent::EncodedPrompt;
use crate::error::{Error, Result};
use crate::models::Conditioning;
use crate::tensor::Tensor;
use crate::weights::RandomAccess;

/// The default size of the cache in bytes: about 180 prompts of Stable Diffusion 3.5.
const MAX_BYTES: u64 = 1 << 30;

/// The size of the folder for the empty prompts of different models.
const MAX_EMPTY_BYTES: u64 = 64 << 20;

/// The names of the cache's files start with this.
const PREFIX: &str = "prompt-";

/// A folder with encoded prompts, for [`LoadOptions::prompt_cache`](crate::LoadOptions::prompt_cache).
///
/// A prompt that is in the folder is not encoded, so the text encoders are not read. A file belongs to the model's files, the device, the
/// version of this crate, the texts, and all options that change their encoded form. Several processes may use a folder at the same
/// time. A file that is corrupt is replaced, with a warning in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromptCache {
    /// The folder. It is created if it does not exist.
    pub folder: PathBuf,
    /// The maximum size of its files in bytes. Those whose last use is the longest ago are deleted.
    pub max_bytes: u64,
}

impl PromptCache {
    /// Creates a cache of up to 1 GiB. A prompt takes 5.5 MB.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), max_bytes: MAX_BYTES }
    }

    /// Sets the maximum size of the folder in bytes.
    #[must_use]
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }
}

/// The stored prompts of a model.
#[derive(Debug)]
pub(crate) struct StoredPrompts {
    cache: PromptCache,
    /// Everything that an encoded prompt depends on besides its texts and their options.
    model: String,
    /// Whether only the empty prompt is stored, in a folder that the user did not name. Problems are then no warnings.
    only_empty: bool,
}

/// The place of an encoded prompt.
struct Entry {
    /// The hash of everything that it depends on.
    key: String,
    path: PathBuf,
}

impl StoredPrompts {
    /// Creates the folder. `model` identifies the weights and the device.
    pub(crate) fn open(cache: PromptCache, model: String) -> Result<Self> {
        let error = |source| Error::File { action: "create", path: cache.folder.clone(), source };
        fs::create_dir_all(&cache.folder).map_err(error)?;
        Ok(Self { cache, model, only_empty: false })
    }

    /// Stores only the empty prompt, which guidance needs in most requests.
    pub(crate) fn of_empty_prompt(folder: PathBuf, model: String) -> Self {
        Self { cache: PromptCache::new(folder).max_bytes(MAX_EMPTY_BYTES), model, only_empty: true }
    }

    fn accepts(&self, texts: &Texts) -> bool {
        !self.only_empty || texts.are_empty()
    }

    fn warn(&self, warnings: &mut Vec<String>, warning: String) {
        if !self.only_empty {
            warnings.push(warning);
        }
    }

    /// Returns a prompt, if it is in the cache. Adds a warning if its file cannot be used.
    pub(super) fn get(&self, texts: &Texts, reading: &Reading, warnings: &mut Vec<String>) -> Option<EncodedPrompt> {
        if !self.accepts(texts) {
            return None;
        }
        let Entry { key, path } = self.entry(texts, reading);
        let file = match RandomAccess::open(&path) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return None,
            file => file,
        };
        let decoded = file.map_err(|error| error.to_string()).and_then(|file| {
            let length = usize::try_from(file.length.min(self.cache.max_bytes)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            file.read_at(0, &mut bytes).map_err(|error| error.to_string())?;
            decode(&key, &bytes).ok_or_else(|| format!("{} is corrupt", path.display()))
        });
        match decoded {
            Ok(encoded) => {
                // The time of the last use, which is not important enough for an error.
                let _ = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
                Some(encoded)
            }
            Err(problem) => {
                self.warn(warnings, format!("a stored prompt was encoded again: {problem}"));
                None
            }
        }
    }

    /// Stores a prompt. Adds a warning if that is impossible.
    pub(super) fn add(&self, texts: &Texts, reading: &Reading, encoded: &EncodedPrompt, warnings: &mut Vec<String>) {
        if !self.accepts(texts) {
            return;
        }
        let Entry { key, path } = self.entry(texts, reading);
        let Some(bytes) = encode(&key, encoded) else { return };
        let stored = if bytes.len() as u64 > self.cache.max_bytes {
            Err(format!("it has {} bytes, and the cache {}; allow more", bytes.len(), self.cache.max_bytes))
        } else {
            let folder = fs::create_dir_all(&self.cache.folder);
            folder.and_then(|()| replace(&path, &bytes)).and_then(|()| self.trim()).map_err(|error| error.to_string())
        };
        if let Err(problem) = stored {
            let folder = self.cache.folder.display();
            self.warn(warnings, format!("the encoded prompt was not stored in {folder}: {problem}"));
        }
    }

    fn entry(&self, texts: &Texts, reading: &Reading) -> Entry {
        let version = env!("CARGO_PKG_VERSION");
        let key = serde_json::json!([version, self.model, texts, reading]).to_string();
        let key = hex(Sha256::new().chain_update(key));
        let path = self.cache.folder.join(format!("{PREFIX}{key}.safetensors"));
        Entry { key, path }
    }

    /// Deletes the files whose last use is the longest ago, until the others fit.
    fn trim(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.cache.folder)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(PREFIX)
                && let Ok(metadata) = file.metadata()
                && metadata.is_file()
            {
                files.push((metadata.modified()?, metadata.len(), file.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= self.cache.max_bytes {
                break;
            }
            // Another process may have deleted it.
            let _ = fs::remove_file(path);
            total -= length;
        }
        Ok(())
    }
}

/// Replaces a file at once, so that no other process reads a part of it.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// The text in the header of a file.
#[derive(Serialize, Deserialize)]
struct Header {
    sha256: String,
    warnings: Vec<String>,
}

/// The name of the header's text.
const HEADER: &str = "prompt";

/// Returns the bytes of a safetensors file.
fn encode(key: &str, encoded: &EncodedPrompt) -> Option<Vec<u8>> {
    let Conditioning { context, pooled } = &encoded.conditioning;
    let bytes = |tensor: &Tensor| tensor.values().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (context_bytes, pooled_bytes) = (bytes(context), bytes(pooled));
    let view = |tensor: &Tensor, bytes| TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes).ok();
    let views = [("context", view(context, &context_bytes)?), ("pooled", view(pooled, &pooled_bytes)?)];
    let sha256 = checksum(key, &encoded.warnings, views.iter().map(|(_, view)| view))?;
    let header = serde_json::to_string(&Header { sha256, warnings: encoded.warnings.clone() }).ok()?;
    safetensors::serialize(views, Some(HashMap::from([(HEADER.to_owned(), header)]))).ok()
}

/// Reads a file of [`encode`]. Returns nothing if it is not exactly the file that was written with this key.
fn decode(key: &str, bytes: &[u8]) -> Option<EncodedPrompt> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    let Header { sha256, warnings } = serde_json::from_str(metadata.metadata().as_ref()?.get(HEADER)?).ok()?;
    let tensors = SafeTensors::deserialize(bytes).ok()?;
    let (context, pooled) = (tensors.tensor("context").ok()?, tensors.tensor("pooled").ok()?);
    if sha256 != checksum(key, &warnings, [&context, &pooled].into_iter())? {
        return None;
    }
    let tensor = |view: &TensorView<'_>| {
        let (values, _) = view.data().as_chunks();
        Tensor::new(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), view.shape()).ok()
    };
    Some(EncodedPrompt {
        conditioning: Conditioning { context: tensor(&context)?, pooled: tensor(&pooled)? },
        warnings,
    })
}

fn checksum<'a>(key: &str, warnings: &[String], tensors: impl Iterator<Item = &'a TensorView<'a>>) -> Option<String> {
    let hash = Sha256::new().chain_update(key).chain_update(serde_json::to_string(warnings).ok()?);
    let add = |hash: Sha256, view: &TensorView<'_>| {
        hash.chain_update(format!("{:?}", view.shape())).chain_update(view.data())
    };
    Some(hex(tensors.fold(hash, add)))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
