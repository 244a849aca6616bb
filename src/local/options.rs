//! What of a request this machine can honour, and in which terms the pipeline takes it.

use std::time::{SystemTime, UNIX_EPOCH};

use lumenfall_diffusion::{FileFormat, Parameters, Pipeline};

use crate::backend::Options;
use crate::error::{Error, ErrorKind};
use crate::images::{AspectRatio, OutputFormat, Resolution, Sampling, Size};

/// JPEG's quality where the request names none.
const JPEG_QUALITY: u8 = 90;

/// A request in the pipeline's terms, but for its size, which depends on the model.
#[derive(Clone)]
pub(super) struct LocalRequest {
    prompt: String,
    layout: Layout,
    count: u32,
    seed: u64,
    steps: Option<u32>,
    guidance: Option<f32>,
    negative_prompt: Option<String>,
    pub(super) strength: Option<f32>,
}

#[derive(Clone, Copy)]
enum Layout {
    Pixels { width: u32, height: u32 },
    Shaped { ratio: Option<AspectRatio>, resolution: Option<Resolution> },
}

/// Takes a request apart. Each field is used or refused by name: the patterns without `..` make the compiler ask about new
/// ones.
pub(super) fn read(prompt: String, options: Options) -> Result<(LocalRequest, FileFormat), Error> {
    let Options {
        provider,
        size,
        aspect_ratio,
        resolution,
        // The answer holds bytes in any case, and `Image` serves both ways of asking.
        response_format: _,
        output_format,
        output_compression,
        n,
        // A name for the service's statistics, which do not exist here.
        user: _,
        sampling,
        extra,
    } = options;
    let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
    if provider.is_some() {
        return Err(unsupported("provider", "no provider can be pinned on this machine; leave it out"));
    }
    if skip_layer_guidance.is_some() {
        return Err(unsupported(
            "skip_layer_guidance",
            "this version does not compute it on this machine; leave it out",
        ));
    }
    if let Some(name) = extra.keys().next() {
        return Err(unsupported(name, "the pipeline on this machine does not know this parameter; leave it out"));
    }
    let layout = match size {
        Some(Size::Pixels { width, height }) => Layout::Pixels { width, height },
        Some(Size::Ratio(ratio)) => Layout::Shaped { ratio: Some(ratio), resolution: None },
        None => Layout::Shaped { ratio: aspect_ratio, resolution },
    };
    let format = file_format(output_format, output_compression)?;
    let request = LocalRequest {
        prompt,
        layout,
        count: n.unwrap_or(1),
        seed: seed.unwrap_or_else(any_seed),
        steps,
        guidance,
        negative_prompt,
        strength,
    };
    Ok((request, format))
}

pub(super) fn unsupported(parameter: &str, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("`{parameter}`: {why}")).with_parameter(parameter)
}

impl LocalRequest {
    /// Everything but the size.
    pub(super) fn parameters(&self) -> Parameters {
        let mut parameters = Parameters::new(self.prompt.clone());
        parameters.negative_prompt.clone_from(&self.negative_prompt);
        parameters.steps = self.steps;
        parameters.guidance = self.guidance;
        parameters.strength = self.strength;
        parameters.seed = self.seed;
        parameters.count = self.count;
        parameters
    }

    /// With the size that the request asks of this model. `source` is the size of the image to edit.
    pub(super) fn sized(&self, parameters: &Parameters, pipeline: &Pipeline, source: Option<(u32, u32)>) -> Parameters {
        let mut parameters = parameters.clone();
        let (width, height) = match self.layout {
            Layout::Pixels { width, height } => (Some(width), Some(height)),
            // The pipeline has its own rule for an edit without a size.
            Layout::Shaped { ratio: None, resolution: None } => (None, None),
            Layout::Shaped { ratio, resolution } => {
                let side = resolution.map_or(pipeline.default_size(), |tier| tier.kilopixels().saturating_mul(1024));
                let shape = ratio.map(|ratio| (ratio.width(), ratio.height())).or(source).unwrap_or((1, 1));
                let (width, height) = fit(side, shape, pipeline.size_step());
                (Some(width), Some(height))
            }
        };
        (parameters.width, parameters.height) = (width, height);
        parameters
    }
}

/// Width and height of the given shape with the area of a square of `side`, in multiples of `step`.
fn fit(side: u32, shape: (u32, u32), step: u32) -> (u32, u32) {
    let ratio = f64::from(shape.0) / f64::from(shape.1);
    let rounded = |length: f64| ((length / f64::from(step)).round().max(1.0) * f64::from(step)) as u32;
    (rounded(f64::from(side) * ratio.sqrt()), rounded(f64::from(side) / ratio.sqrt()))
}

fn file_format(format: Option<OutputFormat>, compression: Option<u32>) -> Result<FileFormat, Error> {
    match (format.unwrap_or(OutputFormat::Png), compression) {
        (OutputFormat::Png, None) => Ok(FileFormat::Png),
        (OutputFormat::Webp, None) => Ok(FileFormat::WebpLossless),
        (OutputFormat::Jpeg, None) => Ok(FileFormat::Jpeg { quality: JPEG_QUALITY }),
        (OutputFormat::Jpeg, Some(level)) => Ok(FileFormat::Jpeg { quality: level.clamp(1, 100) as u8 }),
        (OutputFormat::Webp, Some(_)) => Err(unsupported(
            "output_compression",
            "WebP is written without loss on this machine; leave it out, or choose jpeg",
        )),
        (OutputFormat::Png, Some(_)) => {
            Err(unsupported("output_compression", "PNG has no lossy compression; leave it out, or choose jpeg"))
        }
        (format @ (OutputFormat::Gif | OutputFormat::Avif), _) => {
            let why =
                format!("this machine writes png, jpeg and webp, not {}; choose one of these", <&str>::from(format));
            Err(unsupported("output_format", &why))
        }
    }
}

/// A seed that is another one each time, small enough to be typed again.
fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_keeps_the_area_and_fits_the_grid() {
        assert_eq!(fit(1024, (1, 1), 16), (1024, 1024));
        assert_eq!(fit(1024, (16, 9), 16), (1360, 768));
        assert_eq!(fit(64, (1, 1000), 16), (16, 2016));
    }
}
