//! Finds a model's files on a disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::weights::layout::{self, PartKind};
use crate::weights::{Container, ModelFiles, PartFiles};

/// The folders of ComfyUI and of other programs that contain parts.
const FOLDERS: [&str; 7] = ["checkpoints", "clip", "diffusion_models", "text_encoders", "transformer", "unet", "vae"];

/// The extensions of weight files.
const EXTENSIONS: [&str; 2] = ["safetensors", "gguf"];

impl ModelFiles {
    /// Finds a model by the content of its files.
    ///
    /// `path` is one of these:
    /// - a folder in the layout of the diffusers library, or a repository in the cache of the Hugging Face Hub
    /// - a safetensors or GGUF file with the denoiser; the parts that it lacks are searched in its folder
    /// - a folder with such files, or with ComfyUI's folders
    ///
    /// # Errors
    /// An error that says what the file is, or which parts are missing or found twice.
    pub fn find(path: impl AsRef<Path>) -> Result<Self> {
        Self::find_with(path.as_ref(), PartFiles::default())
    }

    /// Finds a model as [`ModelFiles::find`] does, with known files for some of its parts.
    ///
    /// # Errors
    /// The same as [`ModelFiles::find`], and an error if `path` is a folder in the diffusers layout and `files` has parts.
    pub fn find_with(path: &Path, mut files: PartFiles) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| {
            let path = path.to_path_buf();
            match source.kind() {
                std::io::ErrorKind::NotFound => {
                    let remedy = "specify a folder in the diffusers layout, or a safetensors or GGUF file";
                    Error::malformed(&path, format!("does not exist; {remedy}"))
                }
                _ => Error::File { action: "open", path, source },
            }
        })?;
        if metadata.is_dir() {
            let snapshot = hub_snapshot(path);
            let folder = snapshot.as_deref().unwrap_or(path);
            if folder.join("model_index.json").exists() || folder.join("scheduler").is_dir() {
                if let Some((part, _)) = files.iter().next() {
                    let reason = format!("is a complete model, so its {} cannot come from another file", part.name());
                    return Err(Error::malformed(path, format!("{reason}; name the file of each part")));
                }
                let files = Self::Folder(folder.to_path_buf());
                return check_pipeline(&files).map(|()| files);
            }
            return Candidates::of_folder(folder)?.choose(files, path);
        }
        let container = Container::open_path(path)?;
        let parts = layout::find_parts(&container);
        if parts.is_empty() {
            return Err(Error::malformed(path, layout::describe_other_model(&container)));
        }
        for kind in parts.into_iter().map(|part| part.kind) {
            if files.path(kind).is_none() {
                files.set(kind, path);
            }
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Candidates::of_folder(folder)?.choose(files, path)
    }
}

/// The relevant field of `model_index.json`.
#[derive(Deserialize)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    pipeline: Option<String>,
}

/// Refuses the folder of another model by the name of its pipeline in diffusers.
fn check_pipeline(files: &ModelFiles) -> Result<()> {
    let name = "model_index.json";
    if !files.exists(name) {
        return Ok(());
    }
    match files.json::<ModelIndex>(name)?.pipeline {
        Some(pipeline) if !pipeline.starts_with("StableDiffusion3") => {
            let reason =
                format!("is the model of a {pipeline}, which is not supported; download Stable Diffusion 3.5 Medium");
            Err(Error::malformed(files.path(name), reason))
        }
        _ => Ok(()),
    }
}

/// Returns the newest snapshot in a repository of the hub's cache.
fn hub_snapshot(repository: &Path) -> Option<PathBuf> {
    let snapshots = repository.join("snapshots");
    let revision = ModelFiles::Folder(repository.to_path_buf()).read("refs/main").ok();
    let revision = revision.and_then(|bytes| String::from_utf8(bytes).ok());
    let named = revision.map(|revision| snapshots.join(revision.trim())).filter(|snapshot| snapshot.is_dir());
    named.or_else(|| {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries.pop()
    })
}

/// The files that contain each part.
#[derive(Debug, Default)]
struct Candidates(BTreeMap<PartKind, Vec<PathBuf>>);

impl Candidates {
    /// Reads the headers of all weight files of a folder and of its usual subfolders.
    fn of_folder(folder: &Path) -> Result<Self> {
        let mut candidates = Self::default();
        candidates.add_folder(folder)?;
        for name in FOLDERS.iter().map(|name| folder.join(name)).filter(|folder| folder.is_dir()) {
            candidates.add_folder(&name)?;
        }
        Ok(candidates)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let error = |source| Error::File { action: "list", path: folder.to_path_buf(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_lowercase();
            if EXTENSIONS.contains(&extension.as_str()) && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            // Other files in the folder may be corrupt or of another model.
            let Ok(container) = Container::open_path(&path) else { continue };
            for part in layout::find_parts(&container) {
                self.0.entry(part.kind).or_default().push(path.clone());
            }
        }
        Ok(())
    }

    /// Adds the parts that `files` lacks.
    fn choose(mut self, mut files: PartFiles, searched: &Path) -> Result<ModelFiles> {
        let mut missing = Vec::new();
        for kind in PartKind::ALL {
            if files.path(kind).is_some() {
                continue;
            }
            let found = self.0.remove(&kind).unwrap_or_default();
            match found.as_slice() {
                [] if kind == PartKind::T5 => {}
                [] => missing.push(kind.name()),
                [path] => files.set(kind, path),
                several => {
                    let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
                    let reason = format!(
                        "contains several files with the {}: {}; name the one to use",
                        kind.name(),
                        names.join(", ")
                    );
                    return Err(Error::malformed(searched, reason));
                }
            }
        }
        if missing.is_empty() {
            return Ok(ModelFiles::Parts(files));
        }
        Err(Error::MissingFile {
            path: format!("{} in or beside {}", missing.join(", "), searched.display()).into(),
            remedy: "download safetensors or GGUF files with these parts into the same folder".into(),
        })
    }
}
