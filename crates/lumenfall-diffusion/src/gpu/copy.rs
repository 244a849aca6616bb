//! The copy on a GPU of values in memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::Buffer;
use super::device::Gpu;
use crate::error::Result;

/// The copy of a tensor's values on the GPU that has used them last.
#[derive(Debug, Default)]
pub(crate) struct Copy(Mutex<Option<Arc<Buffer>>>);

impl Copy {
    /// Returns the copy of `values` on a GPU, after creating it if there is none.
    pub(crate) fn get(&self, gpu: &Gpu, values: &[f32]) -> Result<Arc<Buffer>> {
        let mut copy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buffer) = copy.as_ref().filter(|buffer| buffer.gpu() == gpu) {
            return Ok(Arc::clone(buffer));
        }
        let buffer = gpu.upload(bytemuck::cast_slice(values))?;
        *copy = Some(Arc::clone(&buffer));
        Ok(buffer)
    }
}
