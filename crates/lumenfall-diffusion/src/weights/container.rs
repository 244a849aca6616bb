//! A file with tensors, whatever its format.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::files::RandomAccess;
use super::gguf::Gguf;
use super::safetensors::{self, Safetensors};
use super::shard::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// The tensors of one file, by their names in the file.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) shard: Arc<Shard>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    /// The text entries in the header of a safetensors file.
    pub(crate) metadata: HashMap<String, String>,
}

impl Container {
    /// Reads the header of the safetensors or GGUF file at a path.
    pub(crate) fn open_path(path: &Path) -> Result<Self> {
        Self::open(RandomAccess::open(path)?)
    }

    /// Reads the header of a safetensors or GGUF file in memory.
    #[cfg(any(test, feature = "_fuzz"))]
    pub(crate) fn in_memory(bytes: &[u8]) -> Result<Self> {
        Self::open(RandomAccess::in_memory(bytes))
    }

    /// Reads the header of a safetensors or GGUF file.
    pub(crate) fn open(file: RandomAccess) -> Result<Self> {
        let mut magic = [0; 4];
        let is_gguf = file.length >= 4 && file.read_at(0, &mut magic).is_ok() && magic == *b"GGUF";
        if !is_gguf && file.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            let reason = "is not a GGUF file, because it does not begin with `GGUF`; download it again";
            return Err(Error::malformed(&file.path, reason));
        }
        let (shard, tensors, metadata) = match is_gguf {
            true => {
                let Gguf { shard, tensors } = Gguf::open(file)?;
                (shard, tensors, HashMap::new())
            }
            false => {
                let Safetensors { shard, tensors, metadata } = safetensors::open(file)?;
                (shard, tensors, metadata)
            }
        };
        Ok(Self { shard: Arc::new(shard), tensors: tensors.into_iter().collect(), metadata })
    }

    /// Returns the shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| info.shape.as_slice())
    }
}
