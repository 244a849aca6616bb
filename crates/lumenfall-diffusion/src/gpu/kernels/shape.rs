//! Copies that change the order of values.

use super::{Call, spread};
use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::tensor::Tensor;

/// The maximum number of dimensions.
const DIMS: usize = 5;

/// Returns a copy of `x` in which dimension `i` has `shape[i]` values that are `strides[i]` values apart in `x`.
pub(crate) fn permute(gpu: &Gpu, x: &Tensor, shape: &[usize], strides: &[usize]) -> Result<Tensor> {
    let out = gpu.buffer(x.len())?;
    copy(gpu, &x.view(gpu)?, &out, 0, shape, strides)?;
    Tensor::on_gpu(out, shape)
}

/// Concatenates tensors to a tensor of `shape`.
pub(crate) fn concat(gpu: &Gpu, parts: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let out = gpu.buffer(shape.iter().product())?;
    let mut first = 0;
    for part in parts.iter().flat_map(|part| part.bands()) {
        copy(gpu, &part.view(gpu)?, &out, first, &[part.len()], &[1])?;
        first += part.len();
    }
    Tensor::on_gpu(out, shape)
}

/// Returns a view whose first value is at a multiple of 16 bytes.
pub(super) fn aligned(gpu: &Gpu, x: View) -> Result<View> {
    if x.start.is_multiple_of(4) {
        return Ok(x);
    }
    let out = gpu.buffer(x.len)?;
    copy(gpu, &x, &out, 0, &[x.len], &[1])?;
    Ok(out)
}

/// Copies the values of `x` to `out`, starting at the index `first`.
fn copy(gpu: &Gpu, x: &View, out: &View, first: usize, shape: &[usize], strides: &[usize]) -> Result<()> {
    let missing = DIMS.checked_sub(shape.len()).ok_or_else(|| gpu.error("a permutation has too many dimensions"))?;
    let mut parameters = vec![x.len as u32, first as u32];
    for (values, neutral) in [(shape, 1), (strides, 0)] {
        parameters.extend(std::iter::repeat_n(neutral, missing));
        parameters.extend(values.iter().map(|value| *value as u32));
    }
    gpu.call(&Call {
        name: "copy".into(),
        source: &|| include_str!("copy.wgsl").into(),
        inputs: &[x.into()],
        output: &out.buffer,
        parameters: &parameters,
        workgroups: spread(x.len.div_ceil(256) as u64),
        operations: x.len as u64,
    })
}
