//! The layers on a GPU, through Vulkan, Metal or DX12.
//!
//! A tensor lies either in memory or in a buffer of a GPU. A layer with a weight computes where its weight is; any other
//! operation computes on the GPU if one of its inputs is there. Inputs in memory are then copied to the GPU, once for each
//! tensor. Only [`Tensor::on_cpu`](crate::tensor::Tensor::on_cpu) and the functions that need values wait for the GPU.

mod adapters;
mod automatic;
mod buffer;
mod cache;
mod copy;
mod device;
pub(crate) mod kernels;
mod matrices;
mod memory;
mod pipelines;
#[cfg(test)]
#[cfg(feature = "_gpu-tests")]
pub(crate) mod portable;
mod queue;
mod self_test;
#[cfg(test)]
pub(crate) mod tests;
mod weight;

pub use adapters::{GpuInfo, GpuKind, devices};
pub(crate) use buffer::{Buffer, View};
pub(crate) use copy::Copy;
pub(crate) use device::Gpu;
pub(crate) use matrices::Matrices;
pub(crate) use weight::GpuWeight;

use crate::tensor::Tensor;

/// Returns the GPU that one of the tensors is on.
pub(crate) fn of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Option<&'a Gpu> {
    tensors.into_iter().find_map(Tensor::gpu)
}
