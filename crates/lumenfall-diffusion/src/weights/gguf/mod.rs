//! The header of a GGUF file, version 2 or 3.

mod cursor;
mod metadata;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::files::RandomAccess;
use super::shard::{Shard, TensorInfo};
use crate::error::Result;
use cursor::Cursor;
use metadata::Metadata;
use tensors::Entry;
pub(super) use tensors::type_number;

/// The limit of the number of metadata entries and of tensors. Large language models have about 2,000 tensors.
const MAX_ENTRIES: u64 = 1 << 16;

/// An open file.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) shard: Shard,
    pub(crate) tensors: HashMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header of a file and checks that the file contains the tensors that it describes.
    pub(crate) fn open(file: RandomAccess) -> Result<Self> {
        let mut cursor = Cursor::new(&file);
        if cursor.array()? != *b"GGUF" {
            return Err(cursor.corrupt("does not start with the letters GGUF"));
        }
        let version = cursor.u32()?;
        if version != 2 && version != 3 {
            let problem = if matches!(version.swap_bytes(), 2 | 3) {
                "a big-endian GGUF file".into()
            } else {
                format!("a GGUF file of version {version}")
            };
            return Err(cursor.malformed(format!(
                "is {problem}, which is not supported; use a little-endian file of version 2 or 3"
            )));
        }
        let (tensors, entries) = (cursor.u64()?, cursor.u64()?);
        if tensors > MAX_ENTRIES || entries > MAX_ENTRIES {
            return Err(cursor.corrupt(format!("has {tensors} tensors and {entries} metadata entries")));
        }
        let metadata = Metadata::read(&mut cursor, entries)?;
        let tensors = (0..tensors).map(|_| Entry::read(&mut cursor)).collect::<Result<Vec<_>>>()?;
        // The values follow the header.
        let start = cursor.position().checked_next_multiple_of(metadata.alignment).unwrap_or(u64::MAX);
        let tensors = tensors::check(tensors, &metadata, start, &file)?;
        Ok(Self { shard: Shard::new(file), tensors })
    }
}
