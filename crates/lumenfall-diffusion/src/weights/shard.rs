//! An open file with tensors, which are read on demand.

use std::path::Path;

use lumenfall_kernels::{Format, Values};

use super::files::RandomAccess;
use crate::error::{Error, Result};

/// The largest number of bytes that are read at a time.
const PART_BYTES: usize = 4 << 20;

/// The shape, format and position of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorInfo {
    /// The dimensions, the last of which is contiguous.
    pub(crate) shape: Vec<usize>,
    /// The format, or the name of a type that is not supported.
    pub(crate) format: std::result::Result<Format, String>,
    /// The position of the first value in the file.
    pub(super) start: u64,
}

impl TensorInfo {
    /// Returns a range of the first dimension.
    pub(super) fn rows(&self, first: usize, count: usize) -> Self {
        let row: usize = self.shape.iter().skip(1).product();
        let shape = std::iter::once(count).chain(self.shape.iter().skip(1).copied()).collect();
        let skipped = self.format.as_ref().ok().and_then(|format| format.bytes_of(first * row));
        let format = match (&self.format, skipped) {
            (Ok(format), None) => Err(format!("{} with rows of {row} values", format.name())),
            (format, _) => format.clone(),
        };
        Self { shape, format, start: self.start.saturating_add(skipped.unwrap_or(0) as u64) }
    }

    /// Returns the number of bytes of the values in the file.
    pub(super) fn bytes(&self) -> u64 {
        let count = self.shape.iter().product();
        self.format.as_ref().ok().and_then(|format| format.bytes_of(count)).unwrap_or(0) as u64
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Shard {
    file: RandomAccess,
}

impl Shard {
    pub(super) fn new(file: RandomAccess) -> Self {
        Self { file }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Returns the format of the tensor `name`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if the type in the file is not supported.
    pub(super) fn format(&self, name: &str, info: &TensorInfo) -> Result<Format> {
        info.format.clone().map_err(|type_name| Error::Tensor {
            path: self.path().to_path_buf(),
            tensor: name.into(),
            reason: format!(
                "has the type {type_name}, which is not supported; \
                 use a file with F32, F16, BF16, F8_E4M3, F8_E5M2 or quantised GGUF weights"
            ),
        })
    }

    /// Fills a buffer with bytes of a tensor from the byte `first` on.
    pub(super) fn read_bytes(&self, info: &TensorInfo, first: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(info.start.saturating_add(first), buffer)
    }

    /// Lets the operating system begin to read a tensor.
    pub(super) fn read_ahead(&self, info: &TensorInfo) {
        self.file.read_ahead(info.start, info.bytes());
    }

    /// Reads `count` values of the tensor `name`, starting at element `first`. Both must be whole blocks.
    pub(crate) fn read(&self, name: &str, info: &TensorInfo, first: usize, count: usize) -> Result<Values> {
        let error = |reason| Error::Tensor { path: self.path().to_path_buf(), tensor: name.into(), reason };
        let format = self.format(name, info)?;
        let (Some(skipped), Some(bytes)) = (format.bytes_of(first), format.bytes_of(count)) else {
            return Err(error(format!(
                "is stored in blocks of {} values ({}), which the requested rows would split; \
                 use a file with F16 or BF16 weights for this tensor",
                format.block_values(),
                format.name()
            )));
        };
        let mut offset = info.start.saturating_add(skipped as u64);
        let mut read = |part: &mut [u8]| {
            self.file.read_at(offset, part)?;
            offset += part.len() as u64;
            Ok(())
        };
        let values = if format == Format::F32 {
            let mut values = Values::with_capacity(format, count);
            let mut buffer = vec![0; bytes.min(PART_BYTES)];
            while values.len() < count {
                let (part, _) = buffer.split_at_mut(PART_BYTES.min(4 * (count - values.len())));
                read(part)?;
                values.extend_from_bytes(part);
            }
            values
        } else {
            let mut encoded = vec![0; bytes];
            encoded.chunks_mut(PART_BYTES).try_for_each(read)?;
            Values::Encoded(format, encoded)
        };
        // A row that is not whole blocks could not be converted alone.
        let row = info.shape.last().copied().unwrap_or(1);
        Ok(if format.bytes_of(row).is_some() { values } else { Values::F32(values.into_f32()) })
    }
}
