//! Weights on a GPU, in the format of their file.

use std::sync::Arc;

use super::buffer::Buffer;
use super::device::Gpu;
use crate::error::Result;
use crate::tensor::Tensor;
use crate::weights::{Format, Values};

/// A weight on a GPU. Kernels convert it to f32 where they multiply it.
#[derive(Clone, Debug)]
pub(crate) struct GpuWeight {
    pub(super) format: Format,
    pub(super) buffer: Arc<Buffer>,
    /// A factor for each output.
    pub(super) factors: Option<Tensor>,
}

impl GpuWeight {
    /// Copies a weight with rows of `inputs` values to a GPU.
    pub(crate) fn new(gpu: &Gpu, values: Values, inputs: usize) -> Result<Self> {
        match values {
            Values::F32(values) => Self::encoded(gpu, Format::F32, bytemuck::cast_slice(&values)),
            Values::Encoded(format, bytes) => Self::encoded(gpu, format, &bytes),
            Values::Scaled(values, rows) if rows.width == inputs && !matches!(*values, Values::Scaled(..)) => {
                let factors = Tensor::new(rows.factors, &[values.len() / inputs.max(1)])?;
                Ok(Self { factors: Some(factors), ..Self::new(gpu, *values, inputs)? })
            }
            values => Self::new(gpu, Values::F32(values.into_f32()), inputs),
        }
    }

    fn encoded(gpu: &Gpu, format: Format, bytes: &[u8]) -> Result<Self> {
        Ok(Self { format, buffer: gpu.upload(bytes)?, factors: None })
    }

    /// Copies the values of a tensor in memory to a GPU.
    pub(crate) fn of_tensor(gpu: &Gpu, values: &Tensor) -> Result<Self> {
        Self::encoded(gpu, Format::F32, bytemuck::cast_slice(values.values()))
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        self.buffer.gpu()
    }
}
