//! Access to CPU tensors as slices.

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

/// Rows of `width` values that start `stride` values apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    /// Creates rows without gaps between them.
    pub(super) fn packed(data: &'a [f32], width: usize) -> Self {
        Self { data, rows: data.len().checked_div(width).unwrap_or(0), width, stride: width }
    }

    /// Returns the values of row `index`.
    #[inline(always)]
    #[allow(clippy::indexing_slicing, reason = "callers iterate below `rows`")]
    pub(super) fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.width]
    }
}

/// Calls `body` with the values of a tensor as rows of its last dimension.
///
/// Gaps between the rows are allowed, so a range of columns of a matrix needs no copy.
pub(super) fn with_rows<T>(tensor: &Tensor, body: impl FnOnce(Rows<'_>) -> Result<T>) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        bail!("fused operations require f32 tensors on the CPU")
    };
    let dims = layout.dims();
    let width = dims.last().copied().unwrap_or(1);
    let rows = layout.shape().elem_count().checked_div(width).unwrap_or(0);
    let stride = match (dims, layout.stride()) {
        ([rows, width], [stride, 1]) if *rows > 0 && *width > 0 => *stride,
        _ if layout.is_contiguous() => width,
        _ => bail!("fused operations require rows of contiguous values, not the strides {:?}", layout.stride()),
    };
    let length = if rows == 0 { 0 } else { (rows - 1) * stride + width };
    match values.get(layout.start_offset()..).and_then(|rest| rest.get(..length)) {
        Some(data) => body(Rows { data, rows, width, stride }),
        None => bail!("a tensor's layout exceeds its storage"),
    }
}

/// Calls `body` with the values of a contiguous tensor.
pub(super) fn with_values<T>(tensor: &Tensor, body: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    with_rows(&tensor, |rows| body(rows.data))
}
