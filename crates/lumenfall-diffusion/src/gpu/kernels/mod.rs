//! The kernels, in WGSL.
//!
//! The source of a kernel is assembled from a template, in which names that start with `$` are replaced.
//!
//! On a real GPU, kernels are compiled without bounds checks, which make convolutions up to 9 times slower. So every kernel compares its
//! indices with the sizes in its parameters, and the function that calls it derives these sizes from the tensors' shapes.

mod attention;
mod conv;
mod elementwise;
mod group_norm;
mod loaders;
mod matrices;
mod norm;
mod product;
mod shape;

use lumenfall_kernels::Activation;

use super::buffer::{Buffer, View};
use super::device::{Gpu, PARAMETERS};
use super::queue::Command;
use crate::error::Result;

pub(crate) use attention::{attention, with_matrices as attention_with_matrices};
pub(crate) use conv::{Window, conv2d};
pub(crate) use elementwise::{activate, add, affine, gated_residual, multiply, scale_rows, shift_rows, subtract};
pub(crate) use group_norm::group_affine;
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use product::{Body, linear, linear_with};
pub(crate) use shape::{concat, permute};

/// The maximum number of buffers that a kernel reads.
pub(super) const MAX_INPUTS: usize = 5;

/// The maximum number of workgroups in one dimension. More are distributed over two dimensions.
const MAX_WORKGROUPS: u64 = 65_535;

/// A call of a kernel.
struct Call<'a> {
    /// The name of the kernel with its variant, which determines the source.
    name: String,
    source: &'a dyn Fn() -> String,
    inputs: &'a [Input<'a>],
    output: &'a Buffer,
    /// The parameters that follow the positions of the first values of the inputs.
    parameters: &'a [u32],
    workgroups: [u64; 2],
    /// The approximate number of floating-point operations.
    operations: u64,
}

/// A buffer that a kernel reads.
struct Input<'a> {
    buffer: &'a Buffer,
    /// The index of the first byte.
    start: u64,
    bytes: u64,
}

impl<'a> Input<'a> {
    /// Reads the values of a view from the index `first`.
    fn after(view: &'a View, first: usize) -> Self {
        let skipped = first as u64 * 4;
        let Self { buffer, start, bytes } = view.into();
        Self { buffer, start: start + skipped, bytes: bytes.saturating_sub(skipped) }
    }
}

impl<'a> From<&'a View> for Input<'a> {
    fn from(view: &'a View) -> Self {
        Self { buffer: &view.buffer, start: view.start as u64 * 4, bytes: view.len as u64 * 4 }
    }
}

impl Gpu {
    fn call(&self, call: &Call<'_>) -> Result<()> {
        if call.workgroups.contains(&0) {
            return Ok(());
        }
        let limits = &self.0.limits;
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment).max(16);
        let max = limits.max_storage_buffer_binding_size;
        let binding = |buffer: &'_ Buffer, start: u64, bytes: u64| {
            let aligned = start / alignment * alignment;
            let size = (start - aligned + bytes).next_multiple_of(16);
            if size > max {
                return Err(
                    self.error(format!("a part of a buffer with {size} bytes is needed; its driver allows {max}"))
                );
            }
            let size = std::num::NonZeroU64::new(size);
            let binding = wgpu::BufferBinding { buffer: &buffer.raw, offset: aligned, size };
            Ok((((start - aligned) / 4) as u32, binding.buffer.clone(), aligned, size))
        };
        let mut bound = call.inputs.iter().map(|i| binding(i.buffer, i.start, i.bytes)).collect::<Result<Vec<_>>>()?;
        let mut parameters: Vec<u32> = bound.iter().map(|(first, ..)| *first).collect();
        parameters.extend_from_slice(call.parameters);
        debug_assert!(parameters.len() * 4 <= PARAMETERS as usize);
        bound.push(binding(call.output, 0, call.output.raw.size())?);
        let entries: Vec<_> = bound
            .iter()
            .zip(0..)
            .map(|((_, buffer, offset, size), binding)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: *offset, size: *size }),
            })
            .collect();
        let Some(layout) = call.inputs.len().checked_sub(1).and_then(|index| self.0.layouts.get(index)) else {
            return Err(self.error("a kernel has too many inputs"));
        };
        let bindings = self.0.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout.bindings,
            entries: &entries,
        });
        let pipeline = self.pipeline(&call.name, call.source, &layout.pipeline)?;
        let [x, y] = call.workgroups;
        if x > MAX_WORKGROUPS || y > MAX_WORKGROUPS {
            return Err(self.error("a kernel has too many workgroups"));
        }
        let workgroups = [x as u32, y as u32];
        self.push(Command { pipeline, bindings, parameters, workgroups, operations: call.operations })
    }
}

/// Distributes workgroups over two dimensions. The kernel computes `index = y * count of x + x`.
fn spread(workgroups: u64) -> [u64; 2] {
    let y = workgroups.div_ceil(MAX_WORKGROUPS).max(1);
    [workgroups.div_ceil(y), y]
}

/// Returns the WGSL function `act`.
fn activation(activation: Option<Activation>) -> &'static str {
    match activation {
        None => "fn act(v: f32) -> f32 { return v; }",
        // The tanh of a large argument is NaN on some drivers.
        Some(Activation::GeluTanh) => {
            "fn act(v: f32) -> f32 {
    let u = 0.7978845608 * (v + 0.044715 * v * v * v);
    return 0.5 * v * (1.0 + tanh(clamp(u, -15.0, 15.0)));
}"
        }
        // Abramowitz and Stegun, 7.1.26: the error of the error function is at most 1.5e-7.
        Some(Activation::GeluErf) => {
            "fn act(v: f32) -> f32 {
    let x = abs(v) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * x);
    let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let tail = series * exp(-min(x * x, 80.0));
    return select(0.5 * v * tail, 0.5 * v * (2.0 - tail), v > 0.0);
}"
        }
        Some(Activation::QuickGelu) => "fn act(v: f32) -> f32 { return v / (1.0 + exp(min(-1.702 * v, 80.0))); }",
        Some(Activation::Silu) => "fn act(v: f32) -> f32 { return v / (1.0 + exp(min(-v, 80.0))); }",
        Some(Activation::Relu) => "fn act(v: f32) -> f32 { return select(v, 0.0, v < 0.0); }",
    }
}
