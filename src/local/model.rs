//! A model in memory, and the files of its images.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use lumenfall_diffusion::{LoadOptions, ModelFiles, Pipeline, PipelineOutput};

use super::LocalOptions;
use super::options::LocalRequest;
use super::recipe::Recipe;
use crate::backend::{Cost, ImageData, Metadata, Output};
use crate::error::Error;
use crate::values::Size;

/// The name and version of this program in metadata.
const GENERATOR: &str = concat!("lumenfall ", env!("CARGO_PKG_VERSION"));

/// An opened model with the options that apply to all requests.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    pub(super) files: ModelFiles,
    pub(super) fingerprint: String,
    pub(super) options: LoadOptions,
    /// The options of requests that do not set them.
    pub(super) defaults: LocalOptions,
    pub(super) pipeline: Pipeline,
    /// Whether a request has run, so that the weights have been read.
    pub(super) has_run: AtomicBool,
}

impl Model {
    /// Encodes the images of a request in its file format, with their recipes if `with_recipe` is set.
    pub(super) fn encode(
        &self,
        output: &PipelineOutput,
        request: &LocalRequest,
        with_recipe: bool,
        started: Instant,
    ) -> Result<Output, Error> {
        let parameters = request.used(&output.parameters);
        let mut warnings = output.warnings.clone();
        let mut images = Vec::with_capacity(output.images.len());
        for (index, image) in (0..).zip(&output.images) {
            let seed = output.parameters.seed.wrapping_add(index);
            let recipe = Recipe {
                generator: GENERATOR.into(),
                model: self.name.clone(),
                fingerprint: self.fingerprint.clone(),
                request: request.of_image(&output.parameters, seed),
            };
            // An image that was stopped at a deadline cannot be repeated.
            let is_complete = output.steps.get(images.len()) == Some(&output.planned_steps);
            let file = match (with_recipe && is_complete)
                .then(|| image.encode_with(request.format, &recipe.to_file_metadata()))
            {
                Some(Ok(file)) => file,
                Some(Err(error)) => {
                    let file = image.encode(request.format)?;
                    warnings.push(format!("the image file does not contain its parameters: {error}"));
                    file
                }
                None => image.encode(request.format)?,
            };
            images.push(ImageData::new(file).with_seed(seed));
        }
        let metadata = Metadata {
            backend: "local".into(),
            model: Some(self.name.clone()),
            fingerprint: Some(self.fingerprint.clone()),
            size: output.images.first().map(|image| Size::Pixels { width: image.width(), height: image.height() }),
            output_format: parameters.output_format,
            parameters: Some(parameters),
            steps: output.steps.iter().min().copied(),
            skipped_forwards: request.local.first_block_cache.map(|_| output.skipped_forwards.iter().sum()),
            attempts: 1,
            generator: Some(GENERATOR.into()),
            cost: Some(Cost::nothing()),
            elapsed: started.elapsed(),
            warnings,
            ..Metadata::default()
        };
        Ok(Output::new(images, metadata))
    }
}
