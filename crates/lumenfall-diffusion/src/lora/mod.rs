//! LoRAs: files with small changes of a model's layers, each with a strength that every request chooses.

mod adapter;
mod delta;
mod file;
mod keys;
mod magnitude;
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
pub(crate) use strengths::ActiveStrengths;
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
}

impl LoraFile {
    /// Creates a LoRA with a strength of 1.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), path: path.into(), strength: 1.0 }
    }

    /// Sets the strength in requests that do not set it: 0 has no effect, and negative values reverse the effect.
    #[must_use]
    pub fn strength(self, strength: f32) -> Self {
        Self { strength, ..self }
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
    /// [`Error::Parameter`] for a name that does not exist and a strength that is not finite.
    pub(crate) fn strengths(&self, requested: &BTreeMap<String, f32>) -> Result<BTreeMap<String, f32>> {
        let mut strengths: BTreeMap<_, _> = self.files.iter().map(|file| (file.name.clone(), file.strength)).collect();
        for (name, strength) in requested {
            check_strength(name, *strength)?;
            let Some(value) = strengths.get_mut(name) else {
                let names = self.files.iter().map(|file| format!("`{}`", file.name)).collect::<Vec<_>>().join(", ");
                let known = if names.is_empty() { "the model was opened without LoRAs" } else { "the model has" };
                return Err(Error::parameter("loras", format!("has no LoRA `{name}`; {known} {names}").trim_end()));
            };
            *value = *strength;
        }
        Ok(strengths)
    }

    /// Sets the strengths from [`Loras::strengths`] for a request, after requests with other strengths have ended.
    pub(crate) fn activate(
        &self,
        strengths: &BTreeMap<String, f32>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<ActiveStrengths> {
        let values = self.files.iter().map(|file| strengths.get(&file.name).copied().unwrap_or(0.0));
        self.strengths.activate(&values.collect::<Vec<_>>(), check_cancelled)
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

fn check_strength(name: &str, strength: f32) -> Result<()> {
    if strength.is_finite() {
        return Ok(());
    }
    Err(Error::parameter(
        "loras",
        format!("has the strength {strength} for `{name}`; use a finite number, usually 0 to 1"),
    ))
}
