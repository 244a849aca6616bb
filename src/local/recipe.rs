//! The request that generated an image file, stored in the file.

use std::path::Path;
use std::sync::Arc;

use lumenfall_diffusion::{FileMetadata, Noise, Sampler, Schedule, read_metadata};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, GenerateSpec, Options, Request};
use crate::error::{Error, ErrorKind};
use crate::generated::{self, stable_diffusion_3_5_medium as model};
use crate::images::Inline;
use crate::images::typed::Draft;
use crate::values::expand_home;

/// The request that generated an image file of the [local backend](super::Local), with all parameters that were used.
///
/// Each PNG, JPEG, WebP and AVIF file contains its recipe, unless [`Local::metadata`](super::Local::metadata) disables this.
/// The same files of a model, the same version of this crate and the same recipe result in the same file.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lumenfall::Error> {
/// use lumenfall::Client;
/// use lumenfall::local::Recipe;
///
/// let client = Client::demo()?;
/// let images = client.images().generate("a red circle").steps(4).inline().send().await?;
///
/// let recipe = Recipe::from_bytes(images[0].bytes())?; // or `Recipe::read("circle.png").await?`
/// let again = client.images().repeat(recipe)?.send().await?;
/// assert_eq!(again[0].bytes(), images[0].bytes());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Recipe {
    /// The program that generated the image, such as `lumenfall 0.1.0`.
    pub generator: String,
    /// The name of the model, which is the name of its folder or file.
    pub model: String,
    /// The hash that identifies the model's files; see [`Metadata::fingerprint`](crate::backend::Metadata::fingerprint).
    pub fingerprint: String,
    /// The request for this one image, with its own seed. The input images of an edit are not stored in the file, so they
    /// must be added before the edit is sent again.
    pub request: Request,
}

impl Recipe {
    /// Reads the recipe in an image file. A leading `~` stands for the home directory.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], with the path, if the file cannot be read, and the errors of [`from_bytes`](Self::from_bytes).
    pub async fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = expand_home(path.as_ref());
        let file = tokio::fs::read(&path).await.map_err(|error| {
            let message = format!("cannot read the image file {}: {error}; check the path", path.display());
            Error::new(ErrorKind::Io, message)
        })?;
        Self::from_bytes(&file).map_err(|error| error.context(format!("the image file {}", path.display())))
    }

    /// Reads the recipe in the bytes of an image file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the file contains no recipe, or one of a later version of this crate with parameters
    /// that this version does not know.
    pub fn from_bytes(file: &[u8]) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidRequest, message);
        let json = read_metadata(file).ok_or_else(|| {
            let help =
                "use a PNG, JPEG, WebP or AVIF file that the local backend wrote and no other program has changed";
            invalid(format!("the image contains no recipe; {help}"))
        })?;
        serde_json::from_str(&json).map_err(|error| {
            invalid(format!("cannot read the recipe of the image: {error}; use the version of lumenfall that wrote it"))
        })
    }

    /// Returns the texts that an image file contains.
    pub(super) fn to_file_metadata(&self) -> FileMetadata {
        let json = serde_json::to_string(self).unwrap_or_default();
        FileMetadata { json, parameters: self.to_text() }
    }

    /// Returns the parameters in the form of AUTOMATIC1111's web interface, which many programs read: the prompts, and a line
    /// of names and values. It is ambiguous if a prompt contains such lines.
    fn to_text(&self) -> String {
        let (prompt, options) = match &self.request {
            Request::Generate(spec) => (spec.prompt.as_str(), &spec.options),
            Request::Edit(spec) => (spec.prompt.as_deref().unwrap_or_default(), &spec.options),
        };
        let Options { size, sampling, local, .. } = options;
        let negative_prompt = sampling.negative_prompt.as_deref().filter(|text| !text.is_empty());
        let negative_prompt = negative_prompt.map(|text| format!("Negative prompt: {text}\n")).unwrap_or_default();
        let hash: String = self.fingerprint.chars().take(10).collect();
        let values = [
            ("Steps", sampling.steps.map(|steps| steps.to_string())),
            ("Sampler", Some(sampler_name(local.sampler.unwrap_or_default()).into())),
            ("Schedule type", local.schedule.as_ref().and_then(schedule_name).map(str::to_owned)),
            ("CFG scale", sampling.guidance.map(|guidance| guidance.to_string())),
            ("Seed", sampling.seed.map(|seed| seed.to_string())),
            ("Size", size.map(|size| size.to_string())),
            ("Model hash", Some(hash)),
            ("Model", Some(self.model.clone())),
            ("Denoising strength", sampling.strength.map(|strength| strength.to_string())),
            ("RNG", noise_name(local.noise.unwrap_or_default()).map(str::to_owned)),
            ("Version", Some(self.generator.clone())),
        ];
        let pair = |(name, value): (_, Option<String>)| value.map(|value| format!("{name}: {}", quoted(value)));
        let values: Vec<_> = values.into_iter().filter_map(pair).collect();
        format!("{prompt}\n{negative_prompt}{}", values.join(", "))
    }
}

/// Returns the name of a sampler in AUTOMATIC1111's web interface.
fn sampler_name(sampler: Sampler) -> &'static str {
    match sampler {
        Sampler::Heun => "Heun",
        Sampler::Dpmpp2m | Sampler::Dpmpp2mFlow => "DPM++ 2M",
        Sampler::UniPc => "UniPC",
        Sampler::EulerAncestral => "Euler a",
        Sampler::Lcm => "LCM",
        _ => "Euler",
    }
}

/// Returns the name of a schedule in AUTOMATIC1111's web interface, if it has the schedule.
///
/// There, a file without a name has the default schedule of its sampler, as here.
fn schedule_name(schedule: &Schedule) -> Option<&'static str> {
    match schedule {
        Schedule::Shifted => Some("Normal"),
        Schedule::Karras => Some("Karras"),
        Schedule::Exponential => Some("Exponential"),
        Schedule::Beta => Some("Beta"),
        Schedule::SgmUniform => Some("SGM Uniform"),
        Schedule::Simple => Some("Simple"),
        _ => None,
    }
}

/// Returns the name of a source of random numbers in AUTOMATIC1111's web interface, if it has the source.
fn noise_name(noise: Noise) -> Option<&'static str> {
    match noise {
        Noise::TorchCpu => Some("CPU"),
        Noise::TorchCuda(_) => Some("NV"),
        _ => None,
    }
}

/// Quotes a value that would otherwise end early.
fn quoted(value: String) -> String {
    if value.contains([',', ':', '\n', '"']) { serde_json::Value::from(value).to_string() } else { value }
}

impl model::Requests {
    /// Returns a request that generates the image of a recipe again. Its file is the same, byte by byte.
    ///
    /// Send [`Recipe::request`] with [`Client::request`](crate::Client::request) to generate a similar image with another
    /// model or a remote service.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the backend does not run the model of the recipe.
    pub fn repeat(self, recipe: Recipe) -> Result<Draft<Request, Inline>, Error> {
        let draft = self.generate_spec(GenerateSpec::new("", ""));
        let backend = draft.backend();
        let Recipe { model, fingerprint, request, .. } = recipe;
        let actual = backend.capabilities().fingerprint;
        if actual.as_ref() != Some(&fingerprint) {
            let actual = actual.map_or("no known fingerprint".into(), |actual| format!("the fingerprint {actual}"));
            let message = format!(
                "the image was generated by the model `{model}` with the fingerprint {fingerprint}, but the model of the \
                 backend `{}` has {actual}; open the model that generated it, with the same LoRAs",
                backend.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, message).with_parameter("model"));
        }
        let schema = generated::schema(request.model());
        Ok(Draft::with_schema(Arc::clone(backend), schema, request))
    }
}

#[cfg(test)]
mod tests {
    use lumenfall_diffusion::CudaCard;

    use super::*;
    use crate::local::LocalOptions;

    fn text(model: &str, spec: GenerateSpec) -> String {
        let (generator, fingerprint) = ("lumenfall".into(), "0123456789abcdef".into());
        Recipe { generator, model: model.into(), fingerprint, request: spec.into() }.to_text()
    }

    /// The names are those in AUTOMATIC1111's `modules/sd_samplers_kdiffusion.py`, `sd_samplers_timesteps.py` and
    /// `sd_schedulers.py`.
    #[test]
    fn other_programs_read_the_names_of_sampler_and_schedule() {
        for (sampler, schedule, expected) in [
            (None, None, "Sampler: Euler, CFG scale: 5"),
            (Some(Sampler::Euler), Some(Schedule::Shifted), "Sampler: Euler, Schedule type: Normal, CFG"),
            (Some(Sampler::Heun), Some(Schedule::Simple), "Sampler: Heun, Schedule type: Simple, CFG"),
            (Some(Sampler::Dpmpp2m), Some(Schedule::Karras), "Sampler: DPM++ 2M, Schedule type: Karras, CFG"),
            (Some(Sampler::Dpmpp2mFlow), Some(Schedule::DpmSolver), "Sampler: DPM++ 2M, CFG"),
            (Some(Sampler::UniPc), Some(Schedule::Exponential), "Sampler: UniPC, Schedule type: Exponential, CFG"),
            (Some(Sampler::EulerAncestral), Some(Schedule::Beta), "Sampler: Euler a, Schedule type: Beta, CFG"),
            (Some(Sampler::Lcm), Some(Schedule::SgmUniform), "Sampler: LCM, Schedule type: SGM Uniform, CFG"),
            (Some(Sampler::Lcm), Some(Schedule::Sigmas(vec![1.0, 0.5])), "Sampler: LCM, CFG"),
        ] {
            let mut spec = GenerateSpec::new("model", "a star");
            spec.options.sampling.guidance = Some(5.0);
            spec.options.local = LocalOptions { sampler, schedule, ..LocalOptions::default() };
            let text = text("demo", spec);
            assert!(text.contains(expected), "{text}");
        }
    }

    /// The names are those of the setting `randn_source` in AUTOMATIC1111's `modules/shared_options.py`.
    #[test]
    fn other_programs_read_the_noise_and_values_with_separators() {
        for (noise, expected) in [
            (None, ", RNG: CPU, Version"),
            (Some(Noise::TorchCuda(CudaCard::A100)), ", RNG: NV, Version"),
            (Some(Noise::Portable), "Model: demo, Version"),
        ] {
            let mut spec = GenerateSpec::new("model", "a star");
            spec.options.local.noise = noise;
            let text = text("demo", spec);
            assert!(text.contains(expected), "{text}");
        }
        let text = text("sd: \"my\", own", GenerateSpec::new("model", "a star"));
        assert!(text.contains(r#"Model: "sd: \"my\", own", RNG"#), "{text}");
    }
}
