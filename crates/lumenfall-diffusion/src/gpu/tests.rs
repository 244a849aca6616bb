//! Compares the layers on a GPU with plain loops in f64. Any adapter will do, a software adapter such as lavapipe as well.

mod choice;
mod images;
mod layers;

use std::sync::LazyLock;

use half::{bf16, f16};
use lumenfall_kernels::{Format, Values};

use super::device::Options;
use super::{Gpu, adapters};
use crate::error::Result;
use crate::layers::*;
use crate::placement::{Placement, Target};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::Weights;

/// The GPU of all tests: the first adapter of this machine.
pub(crate) fn gpu() -> &'static Gpu {
    static GPU: LazyLock<Gpu> = LazyLock::new(|| {
        let adapters = adapters::all();
        let adapter = adapters.first().expect("these tests need a Vulkan driver, such as Debian's mesa-vulkan-drivers");
        Gpu::of(adapter).unwrap()
    });
    &GPU
}

/// Returns a GPU whose buffers no other test uses.
pub(crate) fn unshared() -> Gpu {
    unshared_in_bands(Options::new(&adapters::all()[0]).band_bytes)
}

/// Returns the same, which computes images in bands of a size in bytes.
pub(crate) fn unshared_in_bands(band_bytes: usize) -> Gpu {
    let adapter = &adapters::all()[0];
    let report = gpu().report().cloned();
    Gpu::open(adapter, Options { band_bytes, report, ..Options::new(adapter) }).unwrap()
}

/// Returns the tolerance of a matrix product.
fn of_product(in_f32: f64) -> f64 {
    if gpu().matrices().is_some() { 2e-3 } else { in_f32 }
}

/// Returns the placement of layers on the GPU of all tests.
pub(crate) fn placement() -> Placement {
    placement_on(gpu())
}

pub(crate) fn placement_on(gpu: &Gpu) -> Placement {
    let placement = Placement::default();
    placement.set(Target::Gpu(gpu.clone()));
    placement
}

pub(super) fn normal(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(Generator::new(seed).normal(shape.iter().product()), shape).unwrap()
}

/// Returns a copy on the GPU.
fn on_gpu(x: &Tensor) -> Tensor {
    Tensor::on_gpu(x.view(gpu()).unwrap(), x.shape()).unwrap()
}

/// Returns a copy on the GPU that starts in the middle of a buffer, at an index that is not a multiple of 4.
fn unaligned(x: &Tensor) -> Tensor {
    let padded = [vec![f32::NAN; 67], x.values().to_vec()].concat();
    let mut view = Tensor::new(padded, &[67 + x.len()]).unwrap().view(gpu()).unwrap();
    (view.start, view.len) = (67, x.len());
    Tensor::on_gpu(view, x.shape()).unwrap()
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    // `max` would ignore NaN.
    values.map(f64::abs).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// Asserts that a tensor is on the GPU and that its values agree within `tolerance` times the largest value.
#[track_caller]
fn assert_same(tolerance: f64, actual: Result<Tensor>, expected: &[f64]) {
    let actual = actual.unwrap();
    assert!(actual.gpu().is_some(), "computed on the CPU");
    let actual = actual.on_cpu().unwrap();
    assert_eq!(actual.values().len(), expected.len());
    let largest = greatest(expected.iter().copied());
    let difference = greatest(actual.values().iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    assert!(difference <= tolerance * largest, "differs by {difference}; the largest value is {largest}");
}

/// Returns the scope `name` of random weights whose layers are on the GPU.
fn random() -> Weights {
    Weights::random().on(&placement())
}

fn linear(values: Values, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Linear {
    Linear::new(values, inputs, outputs, bias).moved_to(&random().root()).unwrap()
}

pub(super) const ACTIVATIONS: [Activation; 5] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu, Activation::Silu, Activation::Relu];

/// Returns weights in a format. Blocks have random bytes, with scales that are normal, subnormal or negative.
pub(super) fn encoded(format: Format, count: usize) -> Values {
    let values = Generator::new(7).normal(count);
    let mut encoded = Values::with_capacity(format, count);
    if format.block_values() == 1 {
        let encode = |value: &f32| match format {
            Format::F32 => value.to_le_bytes().to_vec(),
            Format::Bf16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
            Format::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
            // The upper half of an f16 is a valid code of both 8-bit formats.
            _ => vec![f16::from_f32(*value * if format == Format::F8E5m2 { 1e-4 } else { 1.0 }).to_le_bytes()[1]],
        };
        encoded.extend_from_bytes(&values.iter().flat_map(encode).collect::<Vec<_>>());
        return encoded;
    }
    let bytes = format.bytes_of(count).unwrap();
    let mut bytes: Vec<u8> = values.iter().cycle().take(bytes).map(|value| (value * 1e6) as i64 as u8).collect();
    let scales = [0.01, 3e-5, -0.02, 1e-6].map(f16::from_f32);
    for (index, block) in bytes.chunks_mut(format.block_bytes()).enumerate() {
        for (at, position) in format.scales().iter().enumerate() {
            block[*position..position + 2].copy_from_slice(&scales[(index + at) % 4].to_le_bytes());
        }
    }
    encoded.extend_from_bytes(&bytes);
    encoded
}

/// All formats of weights.
pub(super) const FORMATS: [Format; 15] = {
    use Format::*;
    [F32, F16, Bf16, F8E4m3, F8E5m2, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2K, Q3K, Q4K, Q5K, Q6K]
};
