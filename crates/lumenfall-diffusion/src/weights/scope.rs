//! Access to the tensors whose names have a common prefix.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use lumenfall_kernels::{Format, Values};

use super::stored::Stored;
use super::{MAX_MISSING, StoredRows, Weights, write};
use crate::error::Result;
use crate::lora::{Adapters, layer_name};
use crate::placement::Target;
use crate::tensor::Tensor;

/// A prefix of tensor names.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    pub(super) weights: &'a Weights,
    pub(super) prefix: String,
    /// Whether the weights of layers stay in their files.
    pub(super) streams: bool,
    /// The missing tensors, if tensors are checked and not read.
    pub(super) missing: Option<&'a Mutex<Vec<String>>>,
}

impl Scope<'_> {
    /// Returns the scope `{self}.{name}`.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: self.name(name), ..self.clone() }
    }

    /// Returns the same scope, in which the weights of layers stay in their files. For layers that compute once.
    pub(crate) fn streamed(self, streams: bool) -> Self {
        Self { streams, ..self }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.weights.random.is_some() || self.weights.tensors.contains_key(&self.name(name))
    }

    /// Returns where layers compute. If only headers are read, layers do not compute.
    pub(crate) fn target(&self) -> Target {
        if self.reads_headers_only() { Target::Cpu } else { self.weights.placement.target() }
    }

    /// Returns the LoRAs' changes of the layer.
    pub(crate) fn adapters(&self) -> Adapters {
        self.weights.adapters.get(layer_name(&self.prefix)).cloned().unwrap_or_default()
    }

    /// Returns true if tensors are checked but not read.
    pub(crate) fn reads_headers_only(&self) -> bool {
        self.missing.is_some()
    }

    /// Returns a tensor of the file, or nothing if it is missing and tensors are only checked.
    fn find(&self, name: &str) -> Result<Option<&Arc<Stored>>> {
        let found = self.weights.find(name);
        if let (Err(_), Some(missing)) = (&found, self.missing) {
            let mut missing = missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.push(name.to_owned());
            if missing.len() < MAX_MISSING {
                return Ok(None);
            }
        }
        found.map(Some)
    }

    /// Reads a tensor as f32 and checks that it has the given shape and only finite values.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let values = self.values(name, shape)?;
        if self.reads_headers_only() { Ok(Tensor::unread(shape)) } else { Tensor::new(values.into_f32(), shape) }
    }

    /// Returns the weight of a layer, if it stays in its file.
    pub(crate) fn stored_rows(&self, name: &str, shape: &[usize]) -> Result<Option<StoredRows>> {
        // LoRAs and GPUs need the values.
        let streams = self.streams && matches!(self.target(), Target::Cpu) && self.adapters().is_empty();
        if !streams || self.reads_headers_only() || self.weights.random.is_some() {
            return Ok(None);
        }
        let stored = self.find_with_shape(&self.name(name), shape)?;
        stored.map_or(Ok(None), StoredRows::new)
    }

    /// Returns a tensor of the file after checking its shape, or nothing if it is missing and tensors are only checked.
    fn find_with_shape(&self, name: &str, shape: &[usize]) -> Result<Option<&Arc<Stored>>> {
        let Some(stored) = self.find(name)? else { return Ok(None) };
        if !stored.has_shape(shape) {
            return Err(stored.error(format!(
                "has the shape {:?}, but the model requires {shape:?}; the files belong to different models: \
                 download both from one source",
                stored.shape
            )));
        }
        stored.check_scales()?;
        stored.used.store(true, Ordering::Relaxed);
        Ok(Some(stored))
    }

    /// Reads a tensor in the format of the file and checks that it has the given shape and only finite values.
    ///
    /// If only headers are read, there are no values.
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Values> {
        let name = self.name(name);
        if let Some(requests) = &self.weights.random {
            requests.add(&name, shape);
            let format = self.weights.random_format;
            if let ([_, inputs], false) = (shape, self.reads_headers_only())
                && format != Format::F32
                && format.bytes_of(*inputs).is_some()
            {
                let count = shape.iter().product();
                let mut values = Values::with_capacity(format, count);
                values.extend_from_bytes(&write::random(format, count));
                return Ok(values);
            }
            let shape = if self.reads_headers_only() { &[0] } else { shape };
            return Ok(Values::F32(random_values(&name, shape)));
        }
        let Some(stored) = self.find_with_shape(&name, shape)? else { return Ok(Values::F32(Vec::new())) };
        if self.reads_headers_only() {
            stored
                .parts
                .iter()
                .chain(&stored.scale)
                .try_for_each(|info| stored.shard.format(&stored.name, info).map(|_| ()))?;
            return Ok(Values::F32(Vec::new()));
        }
        let values = stored.read()?;
        if !stored.checked.load(Ordering::Relaxed) {
            stored.check_finite(values.first_not_finite(), 0)?;
            stored.checked.store(true, Ordering::Relaxed);
        }
        Ok(values)
    }

    /// Reads `count` rows, starting at row `first`. A row is the last dimension, which must be `width`.
    ///
    /// If only headers are read, there are no values.
    pub(crate) fn rows(&self, name: &str, width: usize, first: usize, count: usize) -> Result<Vec<f32>> {
        let name = self.name(name);
        if let Some(requests) = &self.weights.random {
            requests.add(&name, &[first.saturating_add(count), width]);
            return Ok(random_values(&name, &[count, width]));
        }
        let Some(stored) = self.find(&name)? else { return Ok(Vec::new()) };
        let shape = &stored.shape;
        let rows = shape.iter().product::<usize>().checked_div(width).unwrap_or(0);
        let ([info], []) = (stored.parts.as_slice(), stored.scale.as_slice()) else {
            return Err(stored.error("is a table of embeddings with scales; use a file with F16 or BF16 values for it"));
        };
        if shape.last() != Some(&width) || first.checked_add(count).is_none_or(|end| end > rows) {
            return Err(stored.error(format!(
                "has the shape {shape:?}, but the model requires {} rows of {width}; \
                 the files belong to different models: download both from one source",
                first.saturating_add(count)
            )));
        }
        stored.used.store(true, Ordering::Relaxed);
        if self.reads_headers_only() {
            return stored.shard.format(&stored.name, info).map(|_| Vec::new());
        }
        let values = stored.shard.read(&stored.name, info, first * width, count * width)?;
        stored.check_finite(values.first_not_finite(), first * width)?;
        Ok(values.into_f32())
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
