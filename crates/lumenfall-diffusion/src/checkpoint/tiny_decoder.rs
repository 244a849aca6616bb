//! Finds the decoder of a tiny autoencoder (TAESD3) in a file.

use std::path::Path;

use super::Part;
use crate::error::{Error, Result};
use crate::weights::layout::{self, Rows};
use crate::weights::{Container, Weights};

/// The naming schemes: the beginning of the names, and the index of the first layer with weights.
const NAMINGS: [(&str, usize); 3] = [
    // diffusers
    ("decoder.layers.", 0),
    // The author's files, in which the first layer limits the values.
    ("", 1),
    // ComfyUI's files for all autoencoders.
    ("taesd_decoder.", 1),
];

/// The dimensions of a tiny decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TinyDecoderConfig {
    pub(crate) latent_channels: usize,
    /// The number of channels of all layers but the ends.
    pub(crate) width: usize,
}

/// Opens a tiny decoder for latents of `latent_channels`. Its layers are named as those of the decoder in diffusers.
pub(crate) fn open(path: &Path, latent_channels: usize) -> Result<Part<TinyDecoderConfig>> {
    let container = Container::open_path(path)?;
    let first_name = |(prefix, first): (&str, usize)| format!("{prefix}{first}.weight");
    let found = NAMINGS.into_iter().find_map(|naming @ (prefix, first)| {
        container.shape(&format!("{prefix}{}.conv.0.weight", first + 2))?;
        Some((naming, <[usize; 4]>::try_from(container.shape(&first_name(naming))?).ok()?))
    });
    let Some((naming @ (prefix, first), shape @ [width, channels, ..])) = found else {
        return Err(Error::malformed(path, describe(&container)));
    };
    let invalid = |problem: String| Error::Tensor {
        path: path.to_path_buf(),
        tensor: first_name(naming),
        reason: format!("has the shape {shape:?}, {problem}; download TAESD3 (madebyollin/taesd3)"),
    };
    if channels != latent_channels {
        return Err(invalid(format!(
            "so the file decodes latents of {channels} channels, but those of the model have {latent_channels}"
        )));
    }
    if width == 0 {
        return Err(invalid("so the file is corrupt".into()));
    }
    let mut weights = Weights::empty(path);
    for name in container.tensors.keys() {
        let layer = name.strip_prefix(prefix).and_then(|name| name.split_once('.'));
        let index = layer.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?.checked_sub(first)?, rest)));
        if let Some((index, rest)) = index {
            weights.insert_from(&container, name, Rows::All, &format!("{index}.{rest}"));
        }
    }
    Ok(Part { weights, config: TinyDecoderConfig { latent_channels, width } })
}

/// Returns what a file without a tiny decoder is.
fn describe(container: &Container) -> String {
    let has = |name: &str| container.shape(name).is_some();
    if has("encoder.layers.0.weight") || (has("0.weight") && has("1.conv.0.weight")) {
        return "contains only the encoder of a tiny autoencoder; download its decoder".into();
    }
    let part = layout::find_parts(container).first().map(|part| format!(", but a {}", part.kind.name()));
    format!("contains no tiny decoder{}; download TAESD3 (madebyollin/taesd3)", part.unwrap_or_default())
}
