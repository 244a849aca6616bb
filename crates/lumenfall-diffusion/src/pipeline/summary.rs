//! A description of an opened model.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Pipeline;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::weights::Weights;
use crate::weights::layout::PartKind;

/// A description of a model, from the headers of its files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelSummary {
    /// The architecture, such as `Stable Diffusion 3.5 with 24 blocks of 1536 channels`.
    pub architecture: String,
    /// The parts of the model.
    pub parts: Vec<PartSummary>,
    /// The memory for one image of the requested size, in bytes, with which no weight is read twice.
    pub memory: u64,
    /// The least memory for one image of the requested size, in bytes. Blocks of the denoiser are then read for each step.
    pub least_memory: u64,
}

/// A description of one part of a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartSummary {
    /// The part.
    pub part: PartKind,
    /// Its file, or one of them.
    pub path: PathBuf,
    /// The number of weights.
    pub weights: u64,
    /// The number of bytes in the files.
    pub bytes: u64,
    /// The number of tensors of each format, such as `F16` or `Q8_0`.
    pub formats: BTreeMap<String, usize>,
    /// The names of tensors that the pipeline does not use.
    pub unused: Vec<String>,
}

impl PartSummary {
    pub(crate) fn new(part: PartKind, weights: &Weights) -> Self {
        let (mut formats, mut count) = (BTreeMap::new(), 0);
        for tensor in weights.tensors() {
            *formats.entry(tensor.format).or_default() += 1;
            count += tensor.values;
        }
        let bytes = weights.tensors().map(|tensor| tensor.bytes).sum();
        Self { part, path: weights.path().to_path_buf(), weights: count, bytes, formats, unused: weights.unused() }
    }
}

impl Pipeline {
    /// Describes the model, and the memory for an image of a size in pixels.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if the model does not support the size.
    pub fn summary(&self, width: u32, height: u32) -> Result<ModelSummary> {
        let parameters = Parameters {
            width: Some(self.side("width", width)?),
            height: Some(self.side("height", height)?),
            ..Parameters::default()
        };
        let (memory, least_memory) = self.memory_for(&parameters)?;
        let mut parts = vec![self.denoiser.summary(), self.vae.summary()];
        parts.extend(self.text.summaries());
        let denoiser = self.denoiser.config();
        let (blocks, channels) = (denoiser.num_layers, denoiser.width());
        let architecture = format!("Stable Diffusion 3.5 with {blocks} blocks of {channels} channels");
        Ok(ModelSummary { architecture, parts, memory, least_memory })
    }
}
