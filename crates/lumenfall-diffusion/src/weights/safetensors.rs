//! A safetensors file, whose tensors are read on demand.

use std::collections::HashMap;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;

use super::files::RandomAccess;
use super::values::Values;
use crate::error::{Error, Result};

/// A file whose header claims to be longer is corrupt.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The size of the buffer between the file and the values.
const BUFFER_BYTES: usize = 4 << 20;

/// The shape, type and position of a tensor.
#[derive(Debug)]
pub(crate) struct TensorInfo {
    pub(crate) shape: Vec<usize>,
    dtype: Dtype,
    start: u64,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Shard {
    file: RandomAccess,
}

/// Reads the JSON header, whose length is in the first 8 bytes.
pub(super) fn header(file: &RandomAccess) -> Result<Vec<u8>> {
    let corrupt = |reason: String| Error::malformed(&file.path, reason);
    let mut length = [0; 8];
    if file.length < 8 {
        return Err(corrupt("is too short to be a safetensors file; download it again".into()));
    }
    file.read_at(0, &mut length)?;
    let header_length = u64::from_le_bytes(length);
    if header_length > MAX_HEADER_BYTES || header_length + 8 > file.length {
        return Err(corrupt(
            "is not a safetensors file, or its header is truncated; download it again or convert it to safetensors"
                .into(),
        ));
    }
    let mut header = vec![0; usize::try_from(header_length).unwrap_or(usize::MAX)];
    file.read_at(8, &mut header)?;
    Ok(header)
}

impl Shard {
    pub(crate) fn open(file: RandomAccess) -> Result<(Self, HashMap<String, TensorInfo>)> {
        let corrupt = |reason: String| Error::malformed(&file.path, reason);
        let header = header(&file)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
            corrupt(format!("is not a safetensors file: its header is not valid ({error}); download it again"))
        })?;
        let data_start = header.len() as u64 + 8;
        let expected = data_start + metadata.data_len() as u64;
        if file.length != expected {
            return Err(corrupt(format!(
                "has {} bytes, but its header describes {expected} bytes, so it is truncated; download it again",
                file.length
            )));
        }
        let infos = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let start = data_start + info.data_offsets.0 as u64;
                (name, TensorInfo { shape: info.shape.clone(), dtype: info.dtype, start })
            })
            .collect();
        Ok((Self { file }, infos))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads `count` values of the tensor `name`, starting at element `first`.
    pub(crate) fn read(&self, name: &str, info: &TensorInfo, first: usize, count: usize) -> Result<Values> {
        let mut values = Values::with_capacity(info.dtype, count).ok_or_else(|| Error::Tensor {
            path: self.path().to_path_buf(),
            tensor: name.into(),
            reason: format!(
                "has the type {:?}, which is not supported; use a file with F32, F16, BF16, F8_E4M3 or F8_E5M2 weights",
                info.dtype
            ),
        })?;
        let width = values.value_bytes();
        let mut buffer = vec![0; (count * width).min(BUFFER_BYTES)];
        let mut offset = info.start + (first * width) as u64;
        let mut left = count * width;
        while left > 0 {
            let part = buffer.len().min(left);
            let (part, _) = buffer.split_at_mut(part);
            self.file.read_at(offset, part)?;
            values.extend_from_bytes(part);
            offset += part.len() as u64;
            left -= part.len();
        }
        Ok(values)
    }
}
