//! A small tensor: f32 values in row-major order, with a shape.

use std::ops::Range;
use std::sync::Arc;

use lumenfall_kernels::permute;

use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::gpu::{self, Gpu};

/// An array of f32 values in row-major order, in memory or on a GPU. Clones and ranges of rows share the values.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    storage: Storage,
    /// The index of the first value.
    start: usize,
    shape: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Storage {
    Cpu(Arc<Values>),
    #[cfg(feature = "gpu")]
    Gpu(Arc<gpu::Buffer>),
    /// Rows that lie in several buffers of a GPU.
    #[cfg(feature = "gpu")]
    Bands(Vec<Tensor>),
}

/// Values in memory.
#[derive(Debug, Default)]
struct Values {
    values: Vec<f32>,
    /// The copy on the GPU that has used the values last.
    #[cfg(feature = "gpu")]
    copy: gpu::Copy,
}

impl From<Vec<f32>> for Storage {
    fn from(values: Vec<f32>) -> Self {
        #[cfg(feature = "gpu")]
        let values = Values { values, copy: gpu::Copy::default() };
        #[cfg(not(feature = "gpu"))]
        let values = Values { values };
        Self::Cpu(Arc::new(values))
    }
}

impl Tensor {
    /// Creates a tensor.
    ///
    /// # Errors
    /// [`Error::Compute`] if the number of values differs from the shape's.
    pub(crate) fn new(values: Vec<f32>, shape: &[usize]) -> Result<Self> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(Error::Compute(format!("{} values do not have the shape {shape:?}", values.len())));
        }
        Ok(Self { storage: values.into(), start: 0, shape: shape.to_vec() })
    }

    /// Creates a tensor whose values were not read. [`Tensor::values`] returns none.
    pub(crate) fn unread(shape: &[usize]) -> Self {
        Self { storage: Vec::new().into(), start: 0, shape: shape.to_vec() }
    }

    /// Creates a tensor on a GPU.
    ///
    /// # Errors
    /// [`Error::Compute`] if the number of values differs from the shape's.
    #[cfg(feature = "gpu")]
    pub(crate) fn on_gpu(view: gpu::View, shape: &[usize]) -> Result<Self> {
        if view.len != shape.iter().product::<usize>() {
            return Err(Error::Compute(format!("{} values do not have the shape {shape:?}", view.len)));
        }
        Ok(Self { storage: Storage::Gpu(view.buffer), start: view.start, shape: shape.to_vec() })
    }

    /// Joins tensors on a GPU along the first dimension, without a copy: each of these bands remains in its own buffer.
    ///
    /// # Errors
    /// [`Error::Compute`] if the shapes of rows differ.
    #[cfg(feature = "gpu")]
    pub(crate) fn in_bands(bands: Vec<Self>) -> Result<Self> {
        let shape = joined_shape(&bands.iter().collect::<Vec<_>>())?;
        match <[Self; 1]>::try_from(bands) {
            Ok([band]) => Ok(band),
            Err(bands) => Ok(Self { storage: Storage::Bands(bands), start: 0, shape }),
        }
    }

    /// Returns the bands of which the tensor consists, each of which lies in one buffer. Most tensors are one band.
    #[cfg(feature = "gpu")]
    pub(crate) fn bands(&self) -> &[Self] {
        match &self.storage {
            Storage::Bands(bands) => bands,
            _ => std::slice::from_ref(self),
        }
    }

    /// Returns the GPU that the tensor is on.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match &self.storage {
            Storage::Cpu(_) => None,
            Storage::Gpu(buffer) => Some(buffer.gpu()),
            Storage::Bands(bands) => bands.first()?.gpu(),
        }
    }

    /// Returns the values on a GPU. Values in memory are copied once, and bands each time.
    #[cfg(feature = "gpu")]
    pub(crate) fn view(&self, gpu: &Gpu) -> Result<gpu::View> {
        let buffer = match &self.storage {
            Storage::Cpu(values) => values.copy.get(gpu, &values.values)?,
            Storage::Gpu(buffer) if buffer.gpu() == gpu => Arc::clone(buffer),
            Storage::Gpu(_) => return self.on_cpu()?.view(gpu),
            Storage::Bands(_) => return Self::concat(&[self])?.view(gpu),
        };
        Ok(gpu::View { buffer, start: self.start, len: self.len() })
    }

    /// Returns the tensor with its values in memory. Values on a GPU are copied, after it has computed them.
    pub(crate) fn on_cpu(&self) -> Result<Self> {
        match &self.storage {
            Storage::Cpu(_) => Ok(self.clone()),
            #[cfg(feature = "gpu")]
            Storage::Gpu(buffer) => Self::new(buffer.gpu().read(&self.view(buffer.gpu())?)?, &self.shape),
            #[cfg(feature = "gpu")]
            Storage::Bands(bands) => {
                let bands = bands.iter().map(Self::on_cpu).collect::<Result<Vec<_>>>()?;
                Self::concat(&bands.iter().collect::<Vec<_>>())
            }
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the values of a tensor in memory. For a tensor on a GPU, it returns none: see [`Tensor::on_cpu`].
    pub(crate) fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Cpu(values) => {
                values.values.get(self.start..).and_then(|values| values.get(..self.len())).unwrap_or(&[])
            }
            #[cfg(feature = "gpu")]
            _ => &[],
        }
    }

    /// Returns the values of a tensor in memory, without a copy if no other tensor shares them.
    pub(crate) fn into_values(self) -> Vec<f32> {
        match self.storage {
            Storage::Cpu(values) if values.values.len() == self.shape.iter().product::<usize>() => {
                Arc::try_unwrap(values).map_or_else(|shared| shared.values.clone(), |values| values.values)
            }
            _ => self.values().to_vec(),
        }
    }

    /// Returns a tensor in memory with a copy of the values, which shares nothing with this one.
    pub(crate) fn detached(&self) -> Self {
        Self { storage: self.values().to_vec().into(), start: 0, shape: self.shape.clone() }
    }

    /// Returns the dimensions.
    ///
    /// # Errors
    /// [`Error::Compute`] if the number of dimensions is not `N`.
    pub(crate) fn dims<const N: usize>(&self) -> Result<[usize; N]> {
        let dims = self.shape.as_slice().try_into();
        dims.map_err(|_| Error::Compute(format!("a tensor of {N} dimensions was expected, not {:?}", self.shape)))
    }

    /// Returns the last dimension, or 1.
    pub(crate) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the same values with another shape.
    pub(crate) fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::Compute(format!("the shape {:?} cannot become {shape:?}", self.shape)));
        }
        #[cfg(feature = "gpu")]
        if let Storage::Bands(_) = self.storage {
            return Self::concat(&[self])?.reshape(shape);
        }
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// Returns a range of the first dimension.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Result<Self> {
        let Some((count, rest)) =
            self.shape.split_first().filter(|(count, _)| rows.start <= rows.end && rows.end <= **count)
        else {
            return Err(Error::Compute(format!("the shape {:?} has no rows {rows:?}", self.shape)));
        };
        #[cfg(feature = "gpu")]
        if let Storage::Bands(bands) = &self.storage {
            let mut first = 0;
            let within = bands.iter().filter_map(|band| {
                let (start, end) = (first, first + band.shape.first()?);
                first = end;
                let part = rows.start.max(start)..rows.end.min(end);
                (part.start < part.end).then(|| band.rows(part.start - start..part.end - start))
            });
            return Self::in_bands(within.collect::<Result<_>>()?);
        }
        let row = self.len().checked_div(*count).unwrap_or(0);
        let shape = std::iter::once(rows.len()).chain(rest.iter().copied()).collect();
        Ok(Self { storage: self.storage.clone(), start: self.start + rows.start * row, shape })
    }

    /// Concatenates tensors along the first dimension.
    pub(crate) fn concat(parts: &[&Self]) -> Result<Self> {
        let shape = joined_shape(parts)?;
        #[cfg(feature = "gpu")]
        if let Some(gpu) = parts.iter().find_map(|part| part.gpu()) {
            return gpu::kernels::concat(gpu, parts, &shape);
        }
        Self::new(parts.iter().map(|part| part.values()).collect::<Vec<_>>().concat(), &shape)
    }

    /// Returns a copy whose dimensions are in the order `axes`.
    pub(crate) fn permute<const N: usize>(&self, axes: [usize; N]) -> Result<Self> {
        let dims = self.dims::<N>()?;
        let mut strides = [1; N];
        for axis in (1..N).rev() {
            if let (Some(dim), Some(stride)) = (dims.get(axis), strides.get(axis).copied()) {
                strides.iter_mut().take(axis).next_back().into_iter().for_each(|previous| *previous = stride * dim);
            }
        }
        let invalid = || Error::Compute(format!("the axes {axes:?} do not permute {dims:?}"));
        let pick = |of: [usize; N]| -> Result<Vec<usize>> {
            axes.iter().map(|axis| of.get(*axis).copied().ok_or_else(invalid)).collect()
        };
        let (shape, strides) = (pick(dims)?, pick(strides)?);
        #[cfg(feature = "gpu")]
        if let Some(gpu) = self.gpu() {
            return gpu::kernels::permute(gpu, self, &shape, &strides);
        }
        Self::new(permute(self.values(), &shape, &strides), &shape)
    }

    /// Applies a function to each value of a tensor in memory.
    pub(crate) fn map(self, function: impl Fn(f32) -> f32) -> Self {
        let shape = self.shape.clone();
        let mut values = self.into_values();
        values.iter_mut().for_each(|value| *value = function(*value));
        Self { storage: values.into(), start: 0, shape }
    }

    /// Combines each value with the value of another tensor of the same shape. The result is in memory.
    pub(crate) fn zip_with(self, other: &Self, function: impl Fn(f32, f32) -> f32) -> Result<Self> {
        if self.shape != other.shape {
            return Err(Error::Compute(format!("the shapes {:?} and {:?} differ", self.shape, other.shape)));
        }
        let shape = self.shape.clone();
        let other = other.on_cpu()?;
        let mut values = match &self.storage {
            Storage::Cpu(_) => self.into_values(),
            #[cfg(feature = "gpu")]
            _ => self.on_cpu()?.into_values(),
        };
        values.iter_mut().zip(other.values()).for_each(|(a, b)| *a = function(*a, *b));
        Self::new(values, &shape)
    }
}

/// Returns the shape of tensors that are joined along the first dimension.
fn joined_shape(parts: &[&Tensor]) -> Result<Vec<usize>> {
    let rest = parts.first().and_then(|first| first.shape.get(1..)).unwrap_or(&[]);
    if let Some(other) = parts.iter().find(|part| part.shape.get(1..) != Some(rest)) {
        return Err(Error::Compute(format!("rows of {:?} and {rest:?} cannot be joined", other.shape)));
    }
    let rows = parts.iter().filter_map(|part| part.shape.first()).sum();
    Ok(std::iter::once(rows).chain(rest.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[usize]) -> Tensor {
        Tensor::new((0..shape.iter().product::<usize>()).map(|i| i as f32).collect(), shape).unwrap()
    }

    #[test]
    fn rows_share_the_values_and_are_copied_when_they_change() {
        let whole = counting(&[4, 2]);
        let rows = whole.rows(1..3).unwrap();
        assert_eq!((rows.shape(), rows.values()), (&[2, 2][..], &[2.0, 3.0, 4.0, 5.0][..]));
        assert_eq!(rows.map(|value| -value).values(), [-2.0, -3.0, -4.0, -5.0]);
        assert_eq!(whole.values(), counting(&[4, 2]).values());
        assert!(whole.rows(3..5).is_err() && counting(&[0, 2]).rows(0..0).unwrap().values().is_empty());
    }

    #[test]
    fn permuted_values_have_the_permuted_indices() {
        let x = counting(&[2, 3, 4]);
        let y = x.permute([2, 0, 1]).unwrap();
        assert_eq!(y.shape(), [4, 2, 3]);
        for (i, value) in y.values().iter().enumerate() {
            let (a, b, c) = (i / 6, i / 3 % 2, i % 3);
            assert_eq!(*value, (b * 12 + c * 4 + a) as f32);
        }
        assert!(x.permute([0, 1]).is_err() && x.permute([0, 1, 3]).is_err());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = counting(&[2, 3]);
        assert!(Tensor::new(vec![0.0; 5], &[2, 3]).is_err() && x.reshape(&[4]).is_err());
        assert!(Tensor::concat(&[&x, &counting(&[2, 2])]).is_err());
        assert_eq!(Tensor::concat(&[&x, &x]).unwrap().shape(), [4, 3]);
        assert!(x.zip_with(&counting(&[3, 2]), |a, _| a).is_err());
    }
}
