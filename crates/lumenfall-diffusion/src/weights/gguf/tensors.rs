//! The tensors of a GGUF file.

use std::collections::HashMap;

use lumenfall_kernels::Format;

use super::super::files::RandomAccess;
use super::super::shard::TensorInfo;
use super::cursor::Cursor;
use super::metadata::Metadata;
use crate::error::{Error, Result};

const MAX_DIMENSIONS: u32 = 4;

/// What the header says about a tensor.
pub(super) struct Entry {
    name: String,
    /// The length of a row is the first.
    dimensions: Vec<u64>,
    type_number: u32,
    /// The position after the header.
    offset: u64,
}

impl Entry {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        let name = cursor.text()?;
        let count = cursor.u32()?;
        if !(1..=MAX_DIMENSIONS).contains(&count) {
            return Err(cursor.corrupt(format!(
                "has {count} dimensions in the tensor `{name}`, where 1 to {MAX_DIMENSIONS} are allowed"
            )));
        }
        let dimensions = (0..count).map(|_| cursor.u64()).collect::<Result<_>>()?;
        Ok(Self { name, dimensions, type_number: cursor.u32()?, offset: cursor.u64()? })
    }

    /// Returns the tensor and the position of its end. `start` is the position of the first tensor.
    fn check(&self, metadata: &Metadata, start: u64) -> std::result::Result<(TensorInfo, u64), String> {
        let corrupt = |problem: String| format!("{problem}, so the file is corrupt; download it again");
        let format = format_of(self.type_number).map_err(|name| {
            let number = self.type_number;
            format!(
                "has the type {name} ({number}), which is not supported; use a file with F32, F16, BF16, Q8_0, Q6_K, \
                 Q5_K, Q5_1, Q5_0, Q4_K, Q4_1, Q4_0, Q3_K or Q2_K weights"
            )
        })?;
        let stored = &self.dimensions;
        let shape: Vec<usize> = stored.iter().rev().map(|dimension| *dimension as usize).collect();
        let count = shape.iter().try_fold(1usize, |count, dimension| count.checked_mul(*dimension));
        let Some(count) = count.filter(|count| *count > 0) else {
            return Err(corrupt(format!("has the impossible shape {shape:?}")));
        };
        let row = shape.last().copied().unwrap_or(1);
        let bytes = format.bytes_of(row).and_then(|row_bytes| row_bytes.checked_mul(count / row));
        let Some(bytes) = bytes else {
            let (name, block) = (format.name(), format.block_values());
            return Err(corrupt(format!("has rows of {row} values, which are not whole {name} blocks of {block}")));
        };
        if !self.offset.is_multiple_of(metadata.alignment) {
            let (offset, alignment) = (self.offset, metadata.alignment);
            return Err(corrupt(format!("starts at {offset}, which is not a multiple of the alignment {alignment}")));
        }
        let start = start.checked_add(self.offset);
        let Some((start, end)) = start.and_then(|start| Some((start, start.checked_add(bytes as u64)?))) else {
            return Err(corrupt(format!("starts at {} and has {bytes} bytes", self.offset)));
        };
        let shape = match metadata.shapes.get(&self.name) {
            Some(original) if original.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) != Some(count) => {
                return Err(corrupt(format!("has the original shape {original:?} and the shape {shape:?}")));
            }
            Some(original) => original.clone(),
            None => shape,
        };
        Ok((TensorInfo { shape, format: Ok(format), start }, end))
    }
}

/// Checks that each tensor is in the file, and that no two tensors overlap or have the same name.
pub(super) fn check(
    entries: Vec<Entry>,
    metadata: &Metadata,
    start: u64,
    file: &RandomAccess,
) -> Result<HashMap<String, TensorInfo>> {
    let error = |tensor: &str, reason| Error::Tensor { path: file.path.clone(), tensor: tensor.into(), reason };
    let mut tensors = HashMap::with_capacity(entries.len());
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in &entries {
        let (info, end) = entry.check(metadata, start).map_err(|reason| error(&entry.name, reason))?;
        if end > file.length {
            let length = file.length;
            let reason =
                format!("ends at {end}, but the file has {length} bytes, so it is truncated; download it again");
            return Err(error(&entry.name, reason));
        }
        ranges.push((info.start, end, entry.name.as_str()));
        if tensors.insert(entry.name.clone(), info).is_some() {
            let reason = "is in the file twice, so the file is corrupt; download it again".into();
            return Err(error(&entry.name, reason));
        }
    }
    ranges.sort_unstable();
    for ((_, end, first), (start, _, second)) in ranges.iter().zip(ranges.iter().skip(1)) {
        if start < end {
            let reason = format!("overlaps with `{first}`, so the file is corrupt; download it again");
            return Err(error(second, reason));
        }
    }
    Ok(tensors)
}

/// Returns the number of a format's tensor type in ggml.
pub(in crate::weights) fn type_number(format: Format) -> Option<u32> {
    (0..=30).find(|number| format_of(*number) == Ok(format))
}

/// Returns the format of a tensor type of ggml, or the type's name if the format is not supported.
fn format_of(type_number: u32) -> std::result::Result<Format, &'static str> {
    Ok(match type_number {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        6 => Format::Q5_0,
        7 => Format::Q5_1,
        8 => Format::Q8_0,
        10 => Format::Q2K,
        11 => Format::Q3K,
        12 => Format::Q4K,
        13 => Format::Q5K,
        14 => Format::Q6K,
        30 => Format::Bf16,
        9 => return Err("Q8_1"),
        15 => return Err("Q8_K"),
        16 => return Err("IQ2_XXS"),
        17 => return Err("IQ2_XS"),
        18 => return Err("IQ3_XXS"),
        19 => return Err("IQ1_S"),
        20 => return Err("IQ4_NL"),
        21 => return Err("IQ3_S"),
        22 => return Err("IQ2_S"),
        23 => return Err("IQ4_XS"),
        24 => return Err("I8"),
        25 => return Err("I16"),
        26 => return Err("I32"),
        27 => return Err("I64"),
        28 => return Err("F64"),
        29 => return Err("IQ1_M"),
        34 => return Err("TQ1_0"),
        35 => return Err("TQ2_0"),
        39 => return Err("MXFP4"),
        40 => return Err("NVFP4"),
        41 => return Err("Q1_0"),
        _ => return Err("of a later version of GGUF"),
    })
}
