//! The weight files of a component, read one tensor at a time.

mod container;
mod files;
mod fingerprint;
mod gguf;
pub(crate) mod layout;
mod requests;
mod safetensors;
mod scope;
mod shard;
mod stored;
mod stored_rows;
mod summary;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lumenfall_kernels::Format;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::lora::Adapters;
use crate::placement::Placement;

pub(crate) use container::Container;
pub(crate) use files::RandomAccess;
pub use files::{EmbeddedFile, ModelFiles, PartFiles};
use layout::Location;
pub(crate) use requests::Requests;
pub(crate) use scope::Scope;
use stored::Stored;
pub(crate) use stored::TensorSummary;
pub(crate) use stored_rows::StoredRows;
pub use summary::PartSummary;
pub(crate) use write::{NewTensor, write_gguf, write_safetensors};

/// The tensors of one part of a model, in one or more files, with their names in the diffusers library.
#[derive(Debug)]
pub(crate) struct Weights {
    tensors: HashMap<String, Arc<Stored>>,
    /// The names in the files of tensors that no tensor of the diffusers library corresponds to.
    unknown: Vec<String>,
    /// The LoRAs' changes of layers, by the names of the layers without `text_model.`.
    pub(crate) adapters: HashMap<String, Adapters>,
    /// A file of the part, for the error message of a missing tensor.
    path: PathBuf,
    /// The record of requested tensors, if there are random values instead of files.
    random: Option<Requests>,
    /// The format of random matrices.
    random_format: Format,
    /// Where the layers with these weights compute.
    placement: Placement,
}

/// The number of missing tensors after which a check ends. The configuration may require any number.
const MAX_MISSING: usize = 50;

/// The index of a component with several files.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Opens `{folder}/{stem}.safetensors`, or the files that `{stem}.safetensors.index.json` lists.
    ///
    /// If neither exists, it opens the 16-bit variants `{stem}.fp16.safetensors` or `{stem}.bf16.safetensors`, or their index.
    pub(crate) fn open(files: &ModelFiles, folder: &str, stem: &str) -> Result<Self> {
        let names = file_names(files, folder, stem)?;
        let mut weights = Self::empty(&names.first().map(|name| files.path(name)).unwrap_or_default());
        for name in &names {
            layout::add_tensors(&mut weights, &Container::open(files.open(name)?)?, &Location::diffusers())?;
        }
        Ok(weights)
    }

    /// Creates weights without tensors.
    pub(crate) fn empty(path: &Path) -> Self {
        Self {
            tensors: HashMap::new(),
            unknown: Vec::new(),
            adapters: HashMap::new(),
            path: path.to_path_buf(),
            random: None,
            random_format: Format::F32,
            placement: Placement::default(),
        }
    }

    /// Sets where the layers with these weights compute.
    pub(crate) fn on(self, placement: &Placement) -> Self {
        Self { placement: placement.clone(), ..self }
    }

    fn insert(&mut self, name: String, tensor: Stored) {
        self.tensors.insert(name, Arc::new(tensor));
    }

    /// Creates weights that have random values for every tensor. Benchmarks use them instead of a file.
    pub(crate) fn random() -> Self {
        Self::recorded(&Requests::default())
    }

    /// The same, with the matrices in a format.
    pub(crate) fn random_in(format: Format) -> Self {
        Self { random_format: format, ..Self::random() }
    }

    /// Creates weights that have random values for every tensor, and records which tensors are requested.
    pub(crate) fn recorded(requests: &Requests) -> Self {
        Self { random: Some(requests.clone()), ..Self::empty(Path::new("")) }
    }

    /// Returns the shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// Returns the number of bytes that the tensors with a prefix take in memory: those of layers in the format of the file, and
    /// vectors in f32.
    pub(crate) fn bytes(&self, prefix: &str) -> u64 {
        self.selected(prefix)
            .map(|tensor| if tensor.shape.len() < 2 { tensor.f32_bytes() } else { tensor.bytes() })
            .sum()
    }

    /// Returns the number of bytes that the tensors with a prefix take in memory as f32.
    pub(crate) fn f32_bytes(&self, prefix: &str) -> u64 {
        self.selected(prefix).map(|tensor| tensor.f32_bytes()).sum()
    }

    /// Returns the number of bytes of a tensor in its file.
    pub(crate) fn file_bytes(&self, name: &str) -> u64 {
        self.tensors.get(name).map_or(0, |tensor| tensor.bytes())
    }

    /// Returns whether layers that compute once leave their weights in the files, if the CPU computes. LoRAs need the values.
    pub(crate) fn stay_in_files(&self) -> bool {
        self.adapters.is_empty()
    }

    /// Returns the names in the files of tensors that the model does not use, in alphabetical order.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = self.tensors.values().filter(|tensor| !tensor.used.load(Ordering::Relaxed));
        let mut names: Vec<String> = unused.map(|tensor| tensor.name.clone()).chain(self.unknown.clone()).collect();
        names.sort();
        names
    }

    /// Describes all tensors.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = TensorSummary> {
        self.tensors.values().map(|tensor| tensor.summary())
    }

    fn selected(&self, prefix: &str) -> impl Iterator<Item = &Arc<Stored>> {
        self.tensors.iter().filter(move |(name, _)| name.starts_with(prefix)).map(|(_, tensor)| tensor)
    }

    /// Returns the names and shapes of all tensors.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.shape.as_slice()))
    }

    /// Returns the path of the file, or of one of them.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a scope that reads tensors.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new(), streams: false, missing: None }
    }

    /// Calls `load` with a scope that checks that tensors exist in the requested shape, but does not read them.
    ///
    /// # Errors
    /// An error that names the missing tensors, or the error of `load`.
    pub(crate) fn check(&self, load: impl FnOnce(&Scope<'_>) -> Result<()>) -> Result<()> {
        let missing = Mutex::default();
        let result = load(&Scope { missing: Some(&missing), ..self.root() });
        let missing: Vec<String> = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some((first, others)) = missing.split_first() else { return result };
        let missing = match others {
            [] => "is missing".to_owned(),
            _ if missing.len() == MAX_MISSING => format!("and at least {} others are missing", others.len()),
            _ => format!("and {} others are missing ({})", others.len(), others.join(", ")),
        };
        let reason = "so the file is incomplete or belongs to another model; download it again";
        Err(self.error(first, format!("{missing}, {reason}")))
    }

    /// Returns an error about a tensor.
    pub(crate) fn error(&self, name: &str, reason: impl Into<String>) -> Error {
        match self.tensors.get(name) {
            Some(stored) => stored.error(reason),
            None => Error::Tensor { path: self.path.clone(), tensor: name.into(), reason: reason.into() },
        }
    }

    fn find(&self, name: &str) -> Result<&Arc<Stored>> {
        self.tensors.get(name).ok_or_else(|| self.error(name, "is missing; download the file again"))
    }
}

/// Returns the names of the files that [`Weights::open`] opens.
pub(crate) fn file_names(files: &ModelFiles, folder: &str, stem: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for variant in ["", ".fp16", ".bf16"] {
        let single = format!("{folder}/{stem}{variant}.safetensors");
        let index = match variant {
            "" => format!("{folder}/{stem}.safetensors.index.json"),
            _ => format!("{folder}/{stem}.safetensors.index{variant}.json"),
        };
        if files.exists(&single) {
            names.push(single);
        } else if files.exists(&index) {
            let parsed: ShardIndex = files.json(&index)?;
            let mut listed: Vec<String> = parsed.weight_map.into_values().collect();
            listed.sort();
            listed.dedup();
            let is_name = |name: &String| Path::new(name).file_name() == Some(name.as_ref());
            if let Some(other) = listed.iter().find(|name| !is_name(name)) {
                let reason = format!("lists {other:?}, which is not the name of a file; download it again");
                return Err(Error::malformed(files.path(&index), reason));
            }
            names = listed.into_iter().map(|name| format!("{folder}/{name}")).collect();
        }
        if !names.is_empty() {
            break;
        }
    }
    if names.is_empty() {
        names.push(format!("{folder}/{stem}.safetensors"));
    }
    Ok(names)
}
