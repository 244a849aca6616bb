//! The naming schemes of weight files. Each maps the names in a file to those of the diffusers library.

mod denoiser;
mod part;
mod t5;
mod vae;

pub(crate) use denoiser::original as original_denoiser;
pub use part::PartKind;
pub(crate) use part::{Location, describe_other_model, find_parts};

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;

use serde::Deserialize;

use super::container::Container;
use super::shard::TensorInfo;
use super::{Stored, Weights};
use crate::error::{Error, Result};

/// How the tensors of a part are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As in diffusers and transformers.
    Diffusers,
    /// As in Stability AI's own files, which ComfyUI and most GGUF files use.
    Original,
    /// As in llama.cpp's T5 files.
    LlamaCpp,
}

/// The rows of a tensor in the file that form a tensor of diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    All,
    /// One of three equal parts, from 0: queries, keys or values.
    Third(usize),
    /// Both halves in the other order.
    SwappedHalves,
}

impl Rows {
    /// Returns the rows in the file that form a tensor of `count` rows, in their order.
    pub(crate) fn ranges(self, count: usize) -> Vec<Range<usize>> {
        match self {
            Self::All => iter::once(0..count).collect(),
            Self::Third(part) => iter::once(part * count..(part + 1) * count).collect(),
            Self::SwappedHalves => vec![count / 2..count, 0..count / 2],
        }
    }
}

/// The suffixes of tensors that scale the weight of their layer. The second is the newer one.
const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];

/// The suffixes of tensors that describe a kind of quantisation that is not supported.
const UNSUPPORTED: [&str; 2] = ["comfy_quant", "weight_scale_inv"];

const REMEDY: &str = "use a file with F16, BF16, plain or scaled fp8, or a GGUF file";

/// The suffixes of tensors that other programs use to quantise the inputs of a layer.
const SCALES_OF_INPUTS: [&str; 2] = ["scale_input", "input_scale"];

/// The name of an empty tensor that marks a file with scales.
const MARK_OF_SCALES: &str = "scaled_fp8";

/// The entry in the header that describes the kinds of quantisation of layers, as JSON.
const KINDS: &str = "_quantization_metadata";

/// The value of [`KINDS`].
#[derive(Deserialize)]
struct Kinds {
    #[serde(default)]
    layers: BTreeMap<String, Kind>,
}

#[derive(Deserialize)]
struct Kind {
    format: String,
}

/// Returns the tensors of one part of a file, named as in diffusers.
pub(crate) fn weights(container: &Container, location: &Location) -> Result<Weights> {
    let mut weights = Weights::empty(container.shard.path());
    add_tensors(&mut weights, container, location)?;
    let parts = find_parts(container);
    if parts.first() == Some(location) {
        // The first part reports the tensors of the file that belong to no part.
        let belongs = |name: &String| parts.iter().any(|part| name.starts_with(&part.prefix));
        weights.unknown.extend(container.tensors.keys().filter(|name| !belongs(name)).cloned());
    }
    Ok(weights)
}

/// Refuses layers that are quantised in another way than by a scale.
fn check_kinds(container: &Container) -> Result<()> {
    let Some(text) = container.metadata.get(KINDS) else { return Ok(()) };
    let path = container.shard.path();
    let kinds: Kinds = serde_json::from_str(text).map_err(|error| {
        Error::malformed(path, format!("has an invalid entry `{KINDS}` in its header ({error}); download it again"))
    })?;
    match kinds.layers.iter().find(|(_, kind)| !matches!(kind.format.as_str(), "float8_e4m3fn" | "float8_e5m2")) {
        Some((layer, Kind { format })) => {
            let reason = format!("has the layer `{layer}` in `{format}`, a kind of quantisation that is not supported");
            Err(Error::malformed(path, format!("{reason}; {REMEDY}")))
        }
        None => Ok(()),
    }
}

/// Adds the tensors of a file to those of the same part in other files.
pub(super) fn add_tensors(weights: &mut Weights, container: &Container, location: &Location) -> Result<()> {
    check_kinds(container)?;
    for (name, info) in &container.tensors {
        let Some(local) = name.strip_prefix(location.prefix.as_str()) else { continue };
        let (layer, suffix) = local.rsplit_once('.').unwrap_or(("", local));
        let refuse = |problem: &str| Error::Tensor {
            path: container.shard.path().to_path_buf(),
            tensor: name.clone(),
            reason: format!("{problem}; {REMEDY}"),
        };
        if UNSUPPORTED.contains(&suffix) {
            return Err(refuse("belongs to a kind of quantisation that is not supported"));
        }
        if SCALES.contains(&suffix) {
            if !container.tensors.contains_key(&format!("{}{layer}.weight", location.prefix)) {
                return Err(refuse("scales a weight that is not in the same file"));
            }
            continue;
        }
        if SCALES_OF_INPUTS.contains(&suffix) || local == MARK_OF_SCALES {
            continue;
        }
        let scale =
            SCALES.iter().find_map(|scale| container.tensors.get(&format!("{}{layer}.{scale}", location.prefix)));
        let targets = targets(container, location, local, info);
        if targets.is_empty() {
            weights.unknown.push(name.clone());
        }
        for (target, rows) in targets {
            let scale = scale.filter(|_| suffix == "weight");
            let scale = scale.map_or_else(Vec::new, |scale| select_scale(scale, info, rows));
            weights.insert(target, Stored::new(&container.shard, name, select(info, rows), scale));
        }
    }
    Ok(())
}

impl Weights {
    /// Adds rows of a tensor of a file under another name.
    pub(crate) fn insert_from(&mut self, container: &Container, tensor: &str, rows: Rows, name: &str) {
        if let Some(info) = container.tensors.get(tensor) {
            self.insert(name.to_owned(), Stored::new(&container.shard, tensor, select(info, rows), Vec::new()));
        }
    }
}

/// Returns the names in diffusers of a tensor of a part, with its rows. Returns none if the part does not use the tensor.
fn targets(container: &Container, location: &Location, name: &str, info: &TensorInfo) -> Vec<(String, Rows)> {
    let found = match (location.kind, location.naming) {
        (PartKind::Denoiser, Naming::Original) => {
            let projection = container.shape(&format!("{}x_embedder.proj.weight", location.prefix));
            let width = projection.and_then(|shape| shape.first().copied()).unwrap_or(0);
            return denoiser::original(name, &info.shape, width);
        }
        (PartKind::Vae, Naming::Original) => vae::original(name, vae::levels(container, &location.prefix)),
        (PartKind::T5, Naming::LlamaCpp) => t5::llama_cpp(name),
        _ => Some(name.to_owned()),
    };
    found.map(|name| (name, Rows::All)).into_iter().collect()
}

/// Returns the name of a tensor of diffusers in another scheme, and its shape in a file with this scheme. Returns none if
/// another tensor of diffusers represents the same tensor of the file.
pub(crate) fn name_in_file(
    kind: PartKind,
    naming: Naming,
    name: &str,
    shape: &[usize],
) -> Option<(String, Vec<usize>)> {
    let (name, rows) = match (kind, naming) {
        (PartKind::Denoiser, Naming::Original) => denoiser::original_name(name)?,
        (PartKind::T5, Naming::LlamaCpp) => (t5::llama_cpp_name(name)?, Rows::All),
        _ => (name.to_owned(), Rows::All),
    };
    let factor = match rows {
        Rows::All | Rows::SwappedHalves => 1,
        Rows::Third(0) => 3,
        Rows::Third(_) => return None,
    };
    let rows = shape.first().map(|rows| factor * rows);
    Some((name, rows.into_iter().chain(shape.iter().skip(1).copied()).collect()))
}

/// Returns the pieces of a tensor that contain the rows, in their order.
fn select(info: &TensorInfo, rows: Rows) -> Vec<TensorInfo> {
    let count = info.shape.first().copied().unwrap_or(0);
    let ranges = match rows {
        Rows::All => return vec![info.clone()],
        Rows::Third(_) => rows.ranges(count / 3),
        Rows::SwappedHalves => rows.ranges(count),
    };
    ranges.into_iter().map(|range| info.rows(range.start, range.len())).collect()
}

/// Returns the pieces of a scale: a single value for all rows of the weight, or one value per row.
fn select_scale(scale: &TensorInfo, weight: &TensorInfo, rows: Rows) -> Vec<TensorInfo> {
    let per_row = scale.shape.first().is_some_and(|rows| *rows > 1 && weight.shape.first() == Some(rows));
    select(scale, if per_row { rows } else { Rows::All })
}
