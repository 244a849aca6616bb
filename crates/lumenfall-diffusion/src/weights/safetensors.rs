//! The header of a safetensors file.

use std::collections::HashMap;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;

use super::files::RandomAccess;
use super::format::Format;
use super::shard::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// A file whose header claims to be longer is corrupt.
const MAX_HEADER_BYTES: u64 = 100_000_000;

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

/// Reads the header of a file and checks that the file contains what it describes.
pub(crate) fn open(file: RandomAccess) -> Result<(Shard, HashMap<String, TensorInfo>)> {
    let corrupt = |reason: String| Error::malformed(&file.path, reason);
    let header = header(&file)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        corrupt(format!("is not a safetensors file: its header is not valid ({error}); download it again"))
    })?;
    let data_start = header.len() as u64 + 8;
    // `Metadata` has checked that the tensors follow each other without gaps, up to `data_len`.
    let expected = data_start.checked_add(metadata.data_len() as u64);
    if expected != Some(file.length) {
        let (expected, problem) = match expected {
            Some(expected) if expected < file.length => (expected.to_string(), "it is not the file that was written"),
            Some(expected) => (expected.to_string(), "it is truncated"),
            None => ("more than 2^64".into(), "its header is corrupt"),
        };
        return Err(corrupt(format!(
            "has {} bytes, but its header describes {expected} bytes, so {problem}; download it again",
            file.length
        )));
    }
    let infos = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let start = data_start + info.data_offsets.0 as u64;
            (name, TensorInfo { shape: info.shape.clone(), format: format_of(info.dtype), start })
        })
        .collect();
    Ok((Shard::new(file), infos))
}

fn format_of(dtype: Dtype) -> std::result::Result<Format, String> {
    match dtype {
        Dtype::F32 => Ok(Format::F32),
        Dtype::F16 => Ok(Format::F16),
        Dtype::BF16 => Ok(Format::Bf16),
        Dtype::F8_E4M3 => Ok(Format::F8E4m3),
        Dtype::F8_E5M2 => Ok(Format::F8E5m2),
        other => Err(format!("{other:?}")),
    }
}
