//! Weights on a GPU, in the format of their file.

use std::sync::Arc;

use half::{bf16, f16};
use lumenfall_kernels::{Format, Values};

use super::buffer::Buffer;
use super::device::Gpu;
use crate::error::Result;
use crate::tensor::Tensor;

/// A weight on a GPU. Kernels convert it to f32 where they multiply it.
#[derive(Clone, Debug)]
pub(crate) struct GpuWeight {
    pub(super) format: Format,
    pub(super) buffer: Arc<Buffer>,
    /// A factor for each output.
    pub(super) factors: Option<Tensor>,
    /// Whether f16 represents the values, without the factors, as finite numbers.
    pub(super) fits_f16: bool,
}

impl GpuWeight {
    /// Copies a weight with rows of `inputs` values to a GPU.
    pub(crate) fn new(gpu: &Gpu, values: &Values, inputs: usize) -> Result<Self> {
        match values {
            Values::F32(values) => Self::encoded(gpu, Format::F32, bytemuck::cast_slice(values)),
            Values::Encoded(format, bytes) => Self::encoded(gpu, *format, bytes),
            Values::Scaled(values, rows) if rows.width == inputs && !matches!(**values, Values::Scaled(..)) => {
                let factors = Tensor::new(rows.factors.clone(), &[values.len() / inputs.max(1)])?;
                Ok(Self { factors: Some(factors), ..Self::new(gpu, values, inputs)? })
            }
            values => Self::encoded(gpu, Format::F32, bytemuck::cast_slice(&values.to_f32())),
        }
    }

    fn encoded(gpu: &Gpu, format: Format, bytes: &[u8]) -> Result<Self> {
        Ok(Self { format, buffer: gpu.upload(bytes)?, factors: None, fits_f16: fits_f16(format, bytes) })
    }

    /// Copies the values of a tensor in memory to a GPU.
    pub(crate) fn of_tensor(gpu: &Gpu, values: &Tensor) -> Result<Self> {
        Self::encoded(gpu, Format::F32, bytemuck::cast_slice(values.values()))
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        self.buffer.gpu()
    }
}

/// Returns whether all values are in the range of f16. Of a quantised format, only the scales are considered.
fn fits_f16(format: Format, bytes: &[u8]) -> bool {
    /// The largest product of a quantised value's code and the integers of its scale is below 4096.
    const MAX_SCALE: f32 = 8.0;
    // Infinity and NaN exceed the range, too: the order of positive floats is that of their bits.
    let bf16_max = bf16::from_f32(65280.0).to_bits();
    match format {
        Format::F16 | Format::F8E4m3 | Format::F8E5m2 => true,
        Format::F32 => {
            let magnitudes = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes) & 0x7fff_ffff);
            magnitudes.fold(0, u32::max) <= f16::MAX.to_f32().to_bits()
        }
        Format::Bf16 => {
            let magnitudes = bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes) & 0x7fff);
            magnitudes.fold(0, u16::max) <= bf16_max
        }
        _ => {
            let is_small = |block: &[u8], at: usize| {
                let scale = block.get(at..).and_then(|bytes| bytes.first_chunk());
                scale.is_some_and(|bytes| f16::from_le_bytes(*bytes).to_f32().abs() <= MAX_SCALE)
            };
            let mut blocks = bytes.chunks(format.block_bytes());
            blocks.all(|block| format.scales().iter().all(|at| is_small(block, *at)))
        }
    }
}
