//! LoRAs: files with small changes of a model's layers, each with a strength that every request chooses.

mod adapter;
mod delta;
mod file;
mod keys;
mod magnitude;
mod merge;
#[cfg(feature = "gpu")]
mod on_gpu;
mod random;
mod scale;
mod strengths;
mod targets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
pub(crate) use adapter::{Adapter, Adapters};
pub(crate) use random::RandomLoras;
use strengths::Strengths;
use targets::Targets;
pub(crate) use targets::layer_name;

/// A LoRA for [`LoadOptions::loras`](crate::LoadOptions::loras).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoraFile {
    /// The name that requests use.
    pub name: String,
    /// The path of the safetensors file.
    pub path: PathBuf,
    /// The strength in requests that do not set it.
    pub strength: f32,
    /// Whether all requests have this strength; see [`LoraFile::fixed`].
    pub fixed: bool,
}

impl LoraFile {
    /// Creates a LoRA with a strength of 1.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), strength: 1.0, fixed: false }
    }

    /// Sets the strength in requests that do not set it: 0 has no effect, and negative values reverse the effect.
    #[must_use]
    pub fn strength(self, strength: f32) -> Self {
        Self { strength, ..self }
    }

    /// Fixes the strength: a request with another one is an error.
    ///
    /// The changes of layers whose weights are f32 are then added to the weights when these are read, so that they take neither time
    /// nor memory in a request. The images are those of a strength per request, up to rounding. Weights of other formats stay as they
    /// are, because rounding a sum to 16 bits or less would lose a part of the change. They are changed in each request, as without
    /// this method.
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { fixed: true, ..self }
    }
}

/// The LoRAs of a pipeline.
#[derive(Debug)]
pub(crate) struct Loras {
    files: Vec<LoraFile>,
    /// The changes by each file.
    adapters: Vec<Vec<Arc<Adapter>>>,
    strengths: Arc<Strengths>,
}

impl Loras {
    /// Reads the headers of LoRAs and adds their changes to the weights of a model.
    pub(crate) fn open(files: &[LoraFile], checkpoint: &mut Checkpoint) -> Result<Self> {
        let strengths = Arc::new(Strengths::new(files.len()));
        let mut loras = Self { files: files.to_vec(), adapters: Vec::new(), strengths };
        if files.is_empty() {
            return Ok(loras);
        }
        for (index, file) in files.iter().enumerate() {
            if files.iter().take(index).any(|other| other.name == file.name) {
                return Err(Error::parameter(
                    "loras",
                    format!("has two LoRAs with the name `{}`; rename one", file.name),
                ));
            }
            check_strength(&file.name, file.strength)?;
        }
        let targets = Targets::new(checkpoint);
        for (index, file) in files.iter().enumerate() {
            let adapters = file::open(file, index, &loras.strengths, &targets)?;
            for adapter in &adapters {
                if let Some(weights) = checkpoint.weights(adapter.part) {
                    weights.adapters.entry(adapter.layer.clone()).or_default().push(Arc::clone(adapter));
                }
            }
            loras.adapters.push(adapters);
        }
        Ok(loras)
    }

    /// Checks that the model has used each change, after it has been opened.
    pub(crate) fn check_attached(&self) -> Result<()> {
        for (file, adapters) in self.files.iter().zip(&self.adapters) {
            let unused = adapters.iter().filter(|adapter| !adapter.attached.load(Ordering::Relaxed));
            let unused: Vec<_> =
                unused.map(|adapter| format!("`{}` ({})", adapter.layer, adapter.part.name())).collect();
            if !unused.is_empty() {
                return Err(file::not_in_model(&file.path, &unused, adapters.len()));
            }
        }
        Ok(())
    }

    /// Returns the strengths of all LoRAs for a request that sets some of them.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a name that does not exist, a strength that is not finite, and another strength than a fixed one.
    pub(crate) fn strengths(&self, requested: &BTreeMap<String, f32>) -> Result<BTreeMap<String, f32>> {
        let mut strengths: BTreeMap<_, _> = self.files.iter().map(|file| (file.name.clone(), file.strength)).collect();
        for (name, strength) in requested {
            check_strength(name, *strength)?;
            let Some(file) = self.files.iter().find(|file| file.name == *name) else {
                let names = self.files.iter().map(|file| format!("`{}`", file.name)).collect::<Vec<_>>().join(", ");
                let known = if names.is_empty() { "the model was opened without LoRAs" } else { "the model has" };
                return Err(Error::parameter("loras", format!("has no LoRA `{name}`; {known} {names}").trim_end()));
            };
            if file.fixed && file.strength != *strength {
                let reason = format!(
                    "sets the strength {strength} for `{name}`, which was opened with the fixed strength {}; leave it out, or \
                     open the LoRA without a fixed strength",
                    file.strength
                );
                return Err(Error::parameter("loras", reason));
            }
            strengths.insert(name.clone(), *strength);
        }
        Ok(strengths)
    }

    /// Sets the strengths from [`Loras::strengths`] for the request that runs.
    pub(crate) fn activate(&self, strengths: &BTreeMap<String, f32>) {
        self.strengths.set(self.files.iter().map(|file| strengths.get(&file.name).copied().unwrap_or(0.0)));
    }

    /// Returns the memory of the changes, in bytes. Those that are added to weights are counted, too, although they are in memory
    /// only while their layer is read, because this depends on the format of each layer.
    pub(crate) fn bytes(&self) -> u64 {
        self.adapters.iter().flatten().map(|adapter| adapter.bytes()).sum()
    }

    /// Returns the memory of the changes that have been read, in bytes.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.adapters.iter().flatten().filter(|adapter| adapter.is_read()).map(|adapter| adapter.bytes()).sum()
    }

    /// Returns a key for the outputs of the text encoders with the current strengths.
    pub(crate) fn text_key(&self) -> Vec<u32> {
        let changes_text =
            |adapters: &[Arc<Adapter>]| adapters.iter().any(|adapter| file::is_text_encoder(adapter.part));
        let strengths = self.adapters.iter().enumerate().map(|(index, adapters)| match self.strengths.get(index) {
            strength if strength != 0.0 && changes_text(adapters) => strength.to_bits(),
            _ => 0,
        });
        strengths.collect()
    }
}

/// Reads the header of a file, whose values may be malformed.
#[cfg(any(test, feature = "_fuzz"))]
pub(crate) fn read_header(container: &crate::weights::Container) {
    drop(file::read(container));
}

fn check_strength(name: &str, strength: f32) -> Result<()> {
    if strength.is_finite() {
        return Ok(());
    }
    Err(Error::parameter(
        "loras",
        format!("has the strength {strength} for `{name}`; use a finite number, usually 0 to 1"),
    ))
}
