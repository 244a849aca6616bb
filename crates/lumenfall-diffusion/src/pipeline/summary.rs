//! A description of an opened model.

use super::Pipeline;
use crate::error::Result;
use crate::parameters::Parameters;
use crate::weights::PartSummary;

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
