//! The weight files of a component, read one tensor at a time.

mod files;
mod fingerprint;
mod format;
#[cfg_attr(not(test), expect(dead_code, reason = "no layout of GGUF files is supported yet"))]
mod gguf;
mod safetensors;
mod shard;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::tensor::Tensor;

pub use files::{EmbeddedFile, ModelFiles};
#[cfg(test)]
pub(crate) use format::Format;
pub(crate) use format::Values;
use shard::{Shard, TensorInfo};

/// The tensors of one component, in one or more files.
#[derive(Debug)]
pub(crate) struct Weights {
    shards: Vec<Shard>,
    tensors: HashMap<String, Stored>,
    /// Whether there are random values instead of files.
    random: bool,
}

/// A tensor in a file.
#[derive(Debug)]
struct Stored {
    shard: usize,
    info: TensorInfo,
    /// Whether all values are known to be finite.
    checked: AtomicBool,
}

/// The index of a component with several files.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Opens `{folder}/{stem}.safetensors`, or the files that `{stem}.safetensors.index.json` lists.
    ///
    /// If neither exists, it opens the 16-bit variant `{stem}.fp16.safetensors` or its index.
    pub(crate) fn open(files: &ModelFiles, folder: &str, stem: &str) -> Result<Self> {
        let names = file_names(files, folder, stem)?;
        let mut shards = Vec::with_capacity(names.len());
        let mut tensors = HashMap::new();
        for name in &names {
            let (shard, infos) = safetensors::open(files.open(name)?)?;
            let stored = |info| Stored { shard: shards.len(), info, checked: AtomicBool::new(false) };
            tensors.extend(infos.into_iter().map(|(tensor, info)| (tensor, stored(info))));
            shards.push(shard);
        }
        Ok(Self { shards, tensors, random: false })
    }

    /// Creates weights that have random values for every tensor. Benchmarks use them instead of a file.
    pub(crate) fn random() -> Self {
        Self { shards: Vec::new(), tensors: HashMap::new(), random: true }
    }

    /// Returns a scope that reads tensors.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new(), headers_only: false }
    }

    /// Returns a scope that checks that tensors exist in the requested shape, but does not read them.
    pub(crate) fn headers(&self) -> Scope<'_> {
        Scope { headers_only: true, ..self.root() }
    }

    fn find(&self, name: &str) -> Result<(&Shard, &Stored)> {
        let found = self.tensors.get(name).and_then(|stored| Some((self.shards.get(stored.shard)?, stored)));
        found.ok_or_else(|| {
            self.tensor_error(name, "is missing, so the file belongs to another model; download it again")
        })
    }

    fn path_of(&self, name: &str) -> &Path {
        let shard = self.tensors.get(name).map_or(0, |stored| stored.shard);
        self.shards.get(shard).map_or(Path::new(""), Shard::path)
    }

    fn tensor_error(&self, name: &str, reason: impl Into<String>) -> Error {
        Error::Tensor { path: self.path_of(name).to_path_buf(), tensor: name.into(), reason: reason.into() }
    }
}

/// Returns the names of the files that [`Weights::open`] opens.
fn file_names(files: &ModelFiles, folder: &str, stem: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for variant in ["", ".fp16"] {
        let single = format!("{folder}/{stem}{variant}.safetensors");
        let index = match variant {
            "" => format!("{folder}/{stem}.safetensors.index.json"),
            _ => format!("{folder}/{stem}.safetensors.index{variant}.json"),
        };
        if files.exists(&single) {
            names.push(single);
        } else if files.exists(&index) {
            let parsed: ShardIndex = files.json(&index)?;
            names = parsed.weight_map.into_values().map(|name| format!("{folder}/{name}")).collect();
            names.sort();
            names.dedup();
        }
        if !names.is_empty() {
            break;
        }
    }
    if names.is_empty() {
        names.push(format!("{folder}/{stem}.safetensors"));
    }
    Ok(names)
}

/// A prefix of tensor names.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
    headers_only: bool,
}

impl Scope<'_> {
    /// Returns the scope `{self}.{name}`.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: self.name(name), ..self.clone() }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.weights.tensors.contains_key(&self.name(name))
    }

    /// Returns true if tensors are checked but not read.
    pub(crate) fn reads_headers_only(&self) -> bool {
        self.headers_only
    }

    /// Reads a tensor as f32 and checks that it has the given shape and only finite values.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.values(name, shape)?;
        if self.headers_only { Ok(Tensor::unread(shape)) } else { Tensor::new(values.into_f32(), shape) }
    }

    /// Reads a tensor in the format of the file and checks that it has the given shape and only finite values.
    ///
    /// If only headers are read, there are no values.
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let name = self.name(name);
        if self.weights.random {
            let shape = if self.headers_only { &[0] } else { shape };
            return Ok(Values::F32(random_values(&name, shape)));
        }
        let (shard, stored) = self.weights.find(&name)?;
        if stored.info.shape != shape {
            return Err(self.weights.tensor_error(
                &name,
                format!(
                    "has the shape {:?}, but config.json requires {shape:?}; the files belong to different models: \
                     download both from one source",
                    stored.info.shape
                ),
            ));
        }
        if self.headers_only {
            return Ok(Values::F32(Vec::new()));
        }
        let values = shard.read(&name, &stored.info, 0, shape.iter().product())?;
        if !stored.checked.load(Ordering::Relaxed) {
            self.check_finite(&name, &values, 0)?;
            stored.checked.store(true, Ordering::Relaxed);
        }
        Ok(values)
    }

    /// Reads `count` rows, starting at row `first`. A row is the last dimension, which must be `width`.
    ///
    /// If only headers are read, there are no values.
    pub(crate) fn rows(&self, name: &str, width: usize, first: usize, count: usize) -> Result<Vec<f32>> {
        let name = self.name(name);
        if self.weights.random {
            return Ok(random_values(&name, &[count, width]));
        }
        let (shard, stored) = self.weights.find(&name)?;
        let shape = &stored.info.shape;
        let rows = shape.iter().product::<usize>().checked_div(width).unwrap_or(0);
        if shape.last() != Some(&width) || first.checked_add(count).is_none_or(|end| end > rows) {
            return Err(self.weights.tensor_error(
                &name,
                format!(
                    "has the shape {shape:?}, but config.json requires {} rows of {width}; \
                     the files belong to different models: download both from one source",
                    first.saturating_add(count)
                ),
            ));
        }
        if self.headers_only {
            return Ok(Vec::new());
        }
        let values = shard.read(&name, &stored.info, first * width, count * width)?;
        self.check_finite(&name, &values, first * width)?;
        Ok(values.into_f32())
    }

    /// Returns an error if a value is infinite or not a number. `first` is the index of the first value in its tensor.
    fn check_finite(&self, name: &str, values: &Values, first: usize) -> Result<()> {
        let Some(index) = values.first_not_finite() else { return Ok(()) };
        Err(self.weights.tensor_error(
            name,
            format!(
                "contains a value that is not finite (element {}), so the file is corrupt; download it again",
                first + index
            ),
        ))
    }

    fn name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

/// Returns uniform values with variance 1/inputs, which depend on the name.
fn random_values(name: &str, shape: &[usize]) -> Vec<f32> {
    let inputs = shape.iter().skip(1).product::<usize>().max(1);
    let bound = (3.0 / inputs as f32).sqrt();
    let mut state = name
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / 8_388_608.0 - 1.0) * bound
    };
    (0..shape.iter().product()).map(|_| next()).collect()
}
