//! Conversion of a request to the parameters of the pipeline.

use lumenfall_diffusion::{FileFormat, Parameters, Pipeline, Sampler};

use super::LocalOptions;
use super::settings::Latents;
use crate::backend::{EditSpec, GenerateSpec, Options, Request};
use crate::error::{Error, ErrorKind};
use crate::values::{AspectRatio, OutputFormat, Resolution, Sampling, Size, SkipLayerGuidance};

/// The default quality of JPEG files.
const JPEG_QUALITY: u32 = 90;
/// The default quality of AVIF files.
#[cfg(feature = "avif")]
const AVIF_QUALITY: u32 = 80;

/// The formats that [`file_format`] accepts.
pub(super) fn output_formats() -> Vec<OutputFormat> {
    OutputFormat::ALL.into_iter().filter(|format| file_format(*format, None).is_ok()).collect()
}

/// A request whose size is still unknown, because it depends on the model and on the source of an edit.
pub(super) struct LocalRequest {
    model: String,
    parameters: Parameters,
    size: Option<Size>,
    aspect_ratio: Option<AspectRatio>,
    resolution: Option<Resolution>,
    /// Set for every edit, and for no other request.
    pub(super) strength: Option<f32>,
    skip_layer_guidance: Option<SkipLayerGuidance>,
    /// The options of the request, and the defaults of those that it left out.
    pub(super) local: LocalOptions,
    pub(super) format: FileFormat,
}

impl LocalRequest {
    /// Converts a request, with the backend's defaults. The patterns have no `..`, so a new option does not compile until it is
    /// used or refused here.
    pub(super) fn new(model: String, prompt: String, options: Options, defaults: &LocalOptions) -> Result<Self, Error> {
        let Options {
            provider,
            size,
            aspect_ratio,
            resolution,
            // `Image` reads bytes in the same way as a URL.
            response_format: _,
            output_format,
            output_compression,
            n,
            // A name for the statistics of a remote service.
            user: _,
            sampling,
            mut local,
            extra,
        } = options;
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
        let refused = provider.map(|_| "provider");
        if let Some(name) = refused.or(extra.keys().next().map(String::as_str)) {
            return Err(unsupported(name, "is not supported by the local backend; leave it out"));
        }
        let format = file_format(output_format.unwrap_or(OutputFormat::Png), output_compression)?;
        let mut parameters = Parameters::new(prompt);
        parameters.negative_prompt = negative_prompt;
        parameters.steps = steps;
        local.merge(defaults.clone());
        local.apply(&mut parameters, guidance, skip_layer_guidance.as_ref())?;
        // 32 bits are easy to type, and the noise does not depend on the others.
        parameters.seed = seed.unwrap_or_else(|| fastrand::u32(..).into());
        parameters.count = n.unwrap_or(1);
        Ok(Self { model, parameters, size, aspect_ratio, resolution, strength, skip_layer_guidance, local, format })
    }

    /// Returns the parameters with the size that the request implies. `source` is the size of the image to edit.
    pub(super) fn parameters(&self, pipeline: &Pipeline, source: Option<(u32, u32)>) -> Parameters {
        let mut parameters = self.parameters.clone();
        let ratio = match self.size {
            Some(Size::Pixels { width, height }) => {
                (parameters.width, parameters.height) = (Some(width), Some(height));
                return parameters;
            }
            Some(Size::Ratio(ratio)) => Some(ratio),
            None => self.aspect_ratio,
        };
        if ratio.is_some() || self.resolution.is_some() {
            let side = self.resolution.map_or(pipeline.default_side(), |tier| tier.kilopixels().saturating_mul(1024));
            let shape = ratio.map(|ratio| (ratio.width(), ratio.height())).or(source).unwrap_or((1, 1));
            let (width, height) = fit(side, shape, pipeline.side_multiple());
            (parameters.width, parameters.height) = (Some(width), Some(height));
        }
        parameters
    }

    /// Returns the options that repeat the request, from the parameters that the pipeline used.
    pub(super) fn used(&self, parameters: &Parameters) -> Options {
        let (output_format, output_compression) = match self.format {
            FileFormat::Jpeg { quality } => (OutputFormat::Jpeg, Some(quality.into())),
            FileFormat::WebpLossless => (OutputFormat::Webp, None),
            FileFormat::WebpLossy { quality } => (OutputFormat::Webp, Some(quality.into())),
            FileFormat::Gif => (OutputFormat::Gif, None),
            #[cfg(feature = "avif")]
            FileFormat::Avif { quality } => (OutputFormat::Avif, Some(quality.into())),
            _ => (OutputFormat::Png, None),
        };
        let size = parameters.width.zip(parameters.height).map(|(width, height)| Size::Pixels { width, height });
        Options {
            size,
            output_format: Some(output_format),
            output_compression,
            n: Some(parameters.count),
            sampling: Sampling {
                seed: Some(parameters.seed),
                steps: parameters.steps,
                guidance: Some(parameters.guidance.scale),
                negative_prompt: parameters.negative_prompt.clone(),
                strength: self.strength,
                skip_layer_guidance: self.skip_layer_guidance.clone(),
            },
            local: LocalOptions {
                // The sampler may be that of the model.
                sampler: self.local.sampler.or(parameters.sampler.filter(|sampler| *sampler != Sampler::default())),
                // Previews and deadlines do not belong to the image.
                preview_every: None,
                at_deadline: None,
                // With the strengths that the request left out.
                loras: Some(parameters.loras.clone()).filter(|loras| !loras.is_empty()),
                ..self.local.clone()
            },
            ..Options::default()
        }
    }

    /// Returns the request for one image of the result, without the input images of an edit.
    pub(super) fn of_image(&self, parameters: &Parameters, seed: u64) -> Request {
        let mut options = self.used(parameters).with_n(1);
        options.sampling.seed = Some(seed);
        options.local.latents = options.local.latents.take().map(|latents| {
            let len = latents.values().len() / (parameters.count as usize).max(1);
            let index = seed.wrapping_sub(parameters.seed) as usize;
            Latents::new(latents.values().chunks(len.max(1)).nth(index).unwrap_or_default())
        });
        let (model, prompt) = (self.model.clone(), parameters.prompt.clone());
        match self.strength {
            Some(_) => {
                let prompt = Some(prompt).filter(|prompt| !prompt.is_empty());
                EditSpec { prompt, ..EditSpec::new(model, []).with_options(options) }.into()
            }
            None => GenerateSpec::new(model, prompt).with_options(options).into(),
        }
    }
}

pub(super) fn unsupported(parameter: &str, reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, format!("`{parameter}` {reason}")).with_parameter(parameter)
}

/// Returns the width and height with the ratio of `shape` and about the area of a square of `side`, as multiples of
/// `multiple`.
fn fit(side: u32, shape: (u32, u32), multiple: u32) -> (u32, u32) {
    let ratio = f64::from(shape.0) / f64::from(shape.1);
    let rounded = |length: f64| ((length / f64::from(multiple)).round().max(1.0) * f64::from(multiple)) as u32;
    (rounded(f64::from(side) * ratio.sqrt()), rounded(f64::from(side) / ratio.sqrt()))
}

fn file_format(format: OutputFormat, compression: Option<u32>) -> Result<FileFormat, Error> {
    let quality = |default: u32| compression.unwrap_or(default).min(100) as u8;
    match (format, compression) {
        (OutputFormat::Png, None) => Ok(FileFormat::Png),
        (OutputFormat::Gif, None) => Ok(FileFormat::Gif),
        (OutputFormat::Png | OutputFormat::Gif, Some(_)) => {
            let reason = format_args!("has no effect on {}; choose jpeg, webp or avif", <&str>::from(format));
            Err(unsupported("output_compression", reason))
        }
        (OutputFormat::Jpeg, _) => Ok(FileFormat::Jpeg { quality: quality(JPEG_QUALITY).max(1) }),
        (OutputFormat::Webp, None) => Ok(FileFormat::WebpLossless),
        (OutputFormat::Webp, Some(level)) => Ok(FileFormat::WebpLossy { quality: quality(level) }),
        #[cfg(feature = "avif")]
        (OutputFormat::Avif, _) => Ok(FileFormat::Avif { quality: quality(AVIF_QUALITY).max(1) }),
        #[cfg(not(feature = "avif"))]
        (OutputFormat::Avif, _) => {
            let reason = "is avif, but the feature `avif` of the crate `lumenfall` is not enabled; \
                          enable it or choose png, jpeg, webp or gif";
            Err(unsupported("output_format", reason))
        }
    }
}
