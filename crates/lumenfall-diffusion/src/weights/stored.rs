//! A tensor in a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lumenfall_kernels::{Format, RowFactors, Values};

use super::shard::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// A tensor in a file that was not read.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) shard: Arc<Shard>,
    /// The name in the file.
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// The ranges of rows in the file that form the tensor, in their order.
    pub(super) parts: Vec<TensorInfo>,
    /// The factors of the values: one for all, or one for each row.
    pub(super) scale: Vec<TensorInfo>,
    /// Whether all values are known to be finite.
    pub(super) checked: AtomicBool,
    /// Whether the model uses the tensor.
    pub(super) used: AtomicBool,
}

/// A description of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorSummary {
    pub(crate) format: String,
    pub(crate) values: u64,
    /// The number of bytes in the file.
    pub(crate) bytes: u64,
}

impl Stored {
    pub(super) fn new(shard: &Arc<Shard>, name: &str, parts: Vec<TensorInfo>, scale: Vec<TensorInfo>) -> Self {
        let rows = parts.iter().filter_map(|part| part.shape.first()).sum();
        let rest = parts.first().and_then(|part| part.shape.get(1..)).unwrap_or(&[]);
        let shape = match parts.as_slice() {
            [only] => only.shape.clone(),
            _ => std::iter::once(rows).chain(rest.iter().copied()).collect(),
        };
        let (shard, name) = (Arc::clone(shard), name.to_owned());
        Self { shard, name, shape, parts, scale, checked: AtomicBool::new(false), used: AtomicBool::new(false) }
    }

    pub(super) fn summary(&self) -> TensorSummary {
        let format = self.parts.first().map_or_else(String::new, |part| match &part.format {
            Ok(format) => format.name().to_owned(),
            Err(name) => name.clone(),
        });
        let values = self.shape.iter().product::<usize>() as u64;
        TensorSummary { format, values, bytes: self.bytes() }
    }

    /// Returns the number of bytes of the values in the file.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(TensorInfo::bytes).sum()
    }

    /// Returns the number of bytes of the values as f32.
    pub(super) fn f32_bytes(&self) -> u64 {
        4 * self.shape.iter().product::<usize>() as u64
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Tensor { path: self.shard.path().to_path_buf(), tensor: self.name.clone(), reason: reason.into() }
    }

    /// Returns whether the shapes are equal. Dimensions of 1 do not count: some files omit them.
    pub(super) fn has_shape(&self, shape: &[usize]) -> bool {
        self.shape.iter().filter(|dim| **dim != 1).eq(shape.iter().filter(|dim| **dim != 1))
    }

    pub(super) fn read(&self) -> Result<Values> {
        let mut parts = self.parts.iter();
        let read = |info: &TensorInfo| self.shard.read(&self.name, info, 0, info.shape.iter().product());
        let mut values = parts.next().map_or_else(|| Ok(Values::F32(Vec::new())), read)?;
        for info in parts {
            values.append(read(info)?);
        }
        Ok(match self.factors()? {
            Some(factors) => Values::Scaled(Box::new(values), factors),
            None => values,
        })
    }

    /// Returns the factors of the rows, if there are any.
    pub(super) fn factors(&self) -> Result<Option<RowFactors>> {
        if self.scale.is_empty() {
            return Ok(None);
        }
        let mut factors = Vec::new();
        for info in &self.scale {
            factors.extend(self.shard.read(&self.name, info, 0, info.shape.iter().product())?.into_f32());
        }
        let rows = self.shape.first().copied().unwrap_or(1);
        Ok(Some(RowFactors::new(factors, rows, self.shape.iter().product())))
    }

    /// Returns the format of a matrix, if its rows are whole blocks of one format.
    pub(super) fn format_of_rows(&self) -> Option<Format> {
        let ([_, width], Some(first)) = (self.shape.as_slice(), self.parts.first()) else { return None };
        let format = first.format.clone().ok()?;
        let is_same = |part: &TensorInfo| part.format.as_ref().is_ok_and(|other| *other == format);
        (format.bytes_of(*width).is_some() && self.parts.iter().all(is_same)).then_some(format)
    }

    /// Fills a buffer with the bytes of rows from `first` on, and checks that the values are finite if this is not known.
    pub(super) fn read_rows(&self, first: usize, buffer: &mut [u8]) -> Result<()> {
        let row_bytes = self.shape.first().map_or(0, |rows| self.bytes() / (*rows).max(1) as u64);
        let mut skipped = first as u64 * row_bytes;
        let mut rest = &mut *buffer;
        for part in &self.parts {
            let (start, length) = (skipped.min(part.bytes()), rest.len() as u64);
            let count = length.min(part.bytes() - start);
            let (bytes, others) = std::mem::take(&mut rest).split_at_mut(count as usize);
            self.shard.read_bytes(part, start, bytes)?;
            rest = others;
            skipped -= start;
        }
        let format = self.format_of_rows().filter(|_| !self.checked.load(Ordering::Relaxed));
        let width = self.shape.get(1).copied().unwrap_or(1);
        self.check_finite(format.and_then(|format| format.first_not_finite(buffer)), first * width)
    }

    /// Lets the operating system begin to read the values.
    pub(super) fn read_ahead(&self) {
        self.parts.iter().for_each(|part| self.shard.read_ahead(part));
    }

    /// Returns the error of a value that is infinite or not a number, if there is one. `first` is the index of the value 0.
    pub(super) fn check_finite(&self, index: Option<usize>, first: usize) -> Result<()> {
        let Some(index) = index else { return Ok(()) };
        Err(self.error(format!(
            "contains a value that is not finite (element {}), so the file is corrupt; download it again",
            first + index
        )))
    }

    /// Checks that there is one scale, or one for each row.
    pub(super) fn check_scales(&self) -> Result<()> {
        let count: usize = self.scale.iter().map(|info| info.shape.iter().product::<usize>()).sum();
        let rows = self.shape.first().copied().unwrap_or(1);
        if self.scale.is_empty() || count == 1 || count == rows {
            return Ok(());
        }
        Err(self.error(format!("has {count} scales for {rows} rows; use a file with one, or one per row")))
    }
}
