//! Compares the layers on a GPU with plain loops in f64. Any adapter will do, a software adapter such as lavapipe as well.

use std::sync::LazyLock;

use half::{bf16, f16};

use super::cache::Cache;
use super::device::Options;
use super::self_test::Report;
use super::{Gpu, GpuKind, adapters, devices};
use crate::device::{Device, GpuChoice};
use crate::error::Result;
use crate::kernels::{ConvShape, Image, reference};
use crate::layers::*;
use crate::placement::{MemoryBudget, Placement, Target};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::{Format, Values, Weights};

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
    let adapter = &adapters::all()[0];
    Gpu::open(adapter, Options::new(adapter)).unwrap()
}

/// Returns the same, which computes images in bands of a size in bytes.
pub(crate) fn unshared_in_bands(band_bytes: usize) -> Gpu {
    let adapter = &adapters::all()[0];
    Gpu::open(adapter, Options { band_bytes, ..Options::new(adapter) }).unwrap()
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

#[test]
fn linear_layers_match() {
    for (tokens, inputs, outputs) in [(1, 48, 96), (37, 33, 65), (130, 64, 200), (65, 20, 3)] {
        let (x, bias) = (normal(1, &[tokens, inputs]), normal(3, &[outputs]));
        let weight = normal(2, &[outputs, inputs]);
        let plain = reference::linear(x.values(), weight.values(), inputs);
        let values = || Values::F32(weight.values().to_vec());
        assert_same(of_product(1e-6), linear(values(), inputs, outputs, None).forward(&x), &plain);
        let biased = linear(values(), inputs, outputs, Some(bias.clone()));
        let bias = bias.values().iter().cycle().map(|bias| f64::from(*bias));
        let expected: Vec<f64> = plain.iter().zip(bias).map(|(value, bias)| value + bias).collect();
        assert_same(of_product(1e-6), biased.forward(&unaligned(&x)), &expected);
        if tokens == 37 {
            for activation in ACTIVATIONS {
                let expected: Vec<f64> = expected.iter().map(|value| reference::activate(*value, activation)).collect();
                assert_same(of_product(1e-6), biased.forward_activated(&x, activation), &expected);
            }
        }
    }
}

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

#[test]
fn the_format_of_a_weight_does_not_change_the_result() {
    for format in FORMATS {
        let shapes: &[_] = if format.block_values() == 1 { &[(17, 36, 7), (3, 33, 6)] } else { &[(17, 768, 7)] };
        for (tokens, inputs, outputs) in shapes.iter().copied() {
            let x = normal(6, &[tokens, inputs]);
            let values = encoded(format, inputs * outputs);
            let expected = reference::linear(x.values(), &values.clone().into_f32(), inputs);
            assert_same(of_product(2e-6), linear(values, inputs, outputs, None).forward(&x), &expected);
        }
    }
    // Each row has a factor.
    let (x, factors) = (normal(6, &[5, 36]), normal(8, &[7]));
    let values = encoded(Format::F8E4m3, 36 * 7).scaled(factors.into_values(), 7);
    let expected = reference::linear(x.values(), &values.clone().into_f32(), 36);
    let expected: Vec<f64> = expected.iter().map(|value| value + 2.0).collect();
    let bias = Tensor::new(vec![2.0; 7], &[7]).unwrap();
    assert_same(of_product(2e-6), linear(values, 36, 7, Some(bias)).forward(&x), &expected);
}

#[test]
fn activations_match_beyond_the_range_of_the_exponential() {
    let x = vec![-1e4f32, -120.0, -90.0, -30.0, -1.0, -0.0, 0.0, 1e-30, 0.5, 30.0, 90.0, 1e4];
    for activation in ACTIVATIONS {
        let expected: Vec<f64> = x.iter().map(|x| reference::activate(f64::from(*x), activation)).collect();
        let x = Tensor::new(x.clone(), &[x.len()]).unwrap();
        let actual = activate(on_gpu(&x), activation).unwrap().on_cpu().unwrap();
        for (actual, expected) in actual.values().iter().zip(expected) {
            let difference = (f64::from(*actual) - expected).abs();
            assert!(difference <= 1e-6 * expected.abs().max(1.0), "{activation:?}: {actual} instead of {expected}");
        }
    }
}

#[test]
fn norms_match() {
    for (tokens, width) in [(1, 16), (77, 48), (3, 1536)] {
        let x = normal(6, &[tokens, width]).map(|value| value * 3.0 + 1.0);
        let (a, b) = (normal(7, &[width]), normal(8, &[width]));
        let expected = reference::layer_norm(x.values(), 1e-6, 1.0, b.values(), a.values());
        assert_same(1e-6, norm_modulate(&unaligned(&x), &a, &unaligned(&b), 1e-6), &expected);

        let weights = Weights::random();
        let scope = weights.root().at("norm");
        let (weight, bias) = (scope.tensor("weight", &[width]).unwrap(), scope.tensor("bias", &[width]).unwrap());
        let expected = reference::layer_norm(x.values(), 1e-5, 0.0, weight.values(), bias.values());
        assert_same(1e-6, LayerNorm::load(&scope, width, 1e-5).unwrap().forward(&on_gpu(&x)), &expected);
        for group in [width, width / 2] {
            let weight = scope.tensor("weight", &[group]).unwrap();
            let expected = reference::rms_norm(x.values(), 1e-6, weight.values());
            assert_same(1e-6, RmsNorm::load(&scope, group, 1e-6).unwrap().forward(&on_gpu(&x)), &expected);
        }
    }
}

#[test]
fn group_norm_matches() {
    let weights = random();
    let scope = weights.root().at("norm");
    let norm = GroupNorm::load(&scope, 4, 24, 1e-6).unwrap();
    let (weight, bias) = (scope.tensor("weight", &[24]).unwrap(), scope.tensor("bias", &[24]).unwrap());
    // The second image needs several chunks of pixels for each group.
    for (height, width) in [(3, 5), (90, 61)] {
        let x = normal(21, &[height, width, 24]).map(|value| value + 0.5);
        let expected = reference::group_norm(x.values(), weight.values(), bias.values(), 4, 1e-6, false);
        assert_same(1e-6, norm.forward(&unaligned(&x)), &expected);
    }
}

#[test]
fn attention_matches_for_every_mask() {
    // Heads of 16 and 64 values are computed by one kernel, heads of 10 and 132 values by products.
    for (queries, keys, heads, dim) in
        [(5, 5, 1, 16), (77, 77, 3, 64), (70, 100, 2, 16), (9, 9, 2, 10), (67, 67, 1, 132)]
    {
        let width = heads * dim;
        let [q, k, v] = [(10, queries), (11, keys), (12, keys)].map(|(seed, tokens)| normal(seed, &[tokens, width]));
        let bias = normal(13, &[heads, queries, keys]);
        let expected = |bias: &dyn Fn(usize, usize, usize) -> f64| {
            reference::attention([&q, &k, &v].map(Tensor::values), width, heads, 0.2, bias)
        };
        let [on_q, on_k, on_v] = [unaligned(&q), unaligned(&k), on_gpu(&v)];
        let attention = |mask| attention(&on_q, &on_k, &on_v, heads, 0.2, mask);
        assert_same(of_product(3e-6), attention(Mask::None), &expected(&|_, _, _| 0.0));
        let biased = |head, query, key| f64::from(bias.values()[(head * queries + query) * keys + key]);
        assert_same(3e-6, attention(Mask::Bias(&bias)), &expected(&biased));
        if queries == keys {
            let causal = |_, query, key| if key > query { f64::NEG_INFINITY } else { 0.0 };
            assert_same(3e-6, attention(Mask::Causal), &expected(&causal));
        }
    }
}

#[test]
fn attention_matches_for_scores_beyond_the_range_of_the_exponential() {
    let q = normal(14, &[4, 8]).map(|value| value * 200.0);
    let v = normal(15, &[4, 8]);
    let expected = reference::attention([&q, &q, &v].map(Tensor::values), 8, 1, 1.0, |_, _, _| 0.0);
    let q = on_gpu(&q);
    assert_same(of_product(1e-5), attention(&q, &q, &v, 1, 1.0, Mask::None), &expected);
}

#[test]
fn residuals_and_products_match() {
    let (x, y, gate) = (normal(16, &[55, 48]), normal(17, &[55, 48]), normal(18, &[48]));
    let expected = |combine: &dyn Fn(f64, f64, f64) -> f64| {
        let gate = gate.values().iter().cycle();
        let values = x.values().iter().zip(y.values()).zip(gate);
        values.map(|((x, y), gate)| combine(f64::from(*x), f64::from(*y), f64::from(*gate))).collect::<Vec<_>>()
    };
    assert_same(1e-6, gated_residual(on_gpu(&x), &unaligned(&y), &gate), &expected(&|x, y, gate| x + gate * y));
    assert_same(1e-6, add(x.clone(), &unaligned(&y)), &expected(&|x, y, _| x + y));
    assert_same(1e-6, multiply(unaligned(&x), &y), &expected(&|x, y, _| x * y));
}

/// Returns an image of twice the width and height, in which each pixel is repeated.
fn doubled(x: &Tensor) -> Tensor {
    let [height, width, channels] = x.dims().unwrap();
    let pixel = |row, column| (row / 2 * width + column / 2) * channels;
    let pixels = (0..2 * height).flat_map(|row| (0..2 * width).map(move |column| pixel(row, column)));
    let values = pixels.flat_map(|pixel| x.values()[pixel..pixel + channels].iter().copied()).collect();
    Tensor::new(values, &[2 * height, 2 * width, channels]).unwrap()
}

#[test]
fn convolutions_match_for_images_of_any_shape() {
    let weights = random();
    let scope = weights.root().at("conv");
    let shape =
        |kernel, stride, padding_before, padding_after| ConvShape { kernel, stride, padding_before, padding_after };
    for channels in [8, 3] {
        let convolutions = [
            (12, shape(3, 1, 1, 1), Conv2d::load(&scope, channels, 12, 3).unwrap()),
            (5, shape(1, 1, 0, 0), Conv2d::load(&scope, channels, 5, 1).unwrap()),
            (channels, shape(3, 2, 0, 1), Conv2d::load_downsample(&scope, channels).unwrap()),
        ];
        for (height, width) in [(2, 2), (7, 13), (33, 20)] {
            let x = normal(19, &[height, width, channels]);
            for (outputs, shape, conv) in &convolutions {
                let weight = scope.tensor("weight", &[*outputs, channels, shape.kernel, shape.kernel]).unwrap();
                let bias = scope.tensor("bias", &[*outputs]).unwrap();
                let expected = |x: &Tensor| {
                    let [height, width, channels] = x.dims().unwrap();
                    let image = Image { values: x.values(), height, width, channels };
                    reference::conv2d(image, *shape, weight.values(), bias.values())
                };
                assert_same(of_product(1e-6), conv.forward(&unaligned(&x)), &expected(&x));
                if shape.stride == 1 {
                    assert_same(of_product(1e-6), conv.forward_upsampled(&x), &expected(&doubled(&x)));
                }
            }
        }
    }
}

#[test]
fn convolutions_of_normalized_images_match() {
    let weights = random();
    let scope = weights.root().at("conv");
    let (conv, shortcut) = (Conv2d::load(&scope, 8, 12, 3).unwrap(), Conv2d::load(&scope, 8, 12, 1).unwrap());
    let norm = GroupNorm::load(&scope.at("norm"), 4, 8, 1e-6).unwrap();
    let (scale, shift) = ["weight", "bias"].map(|name| scope.at("norm").tensor(name, &[8]).unwrap()).into();
    let x = normal(19, &[7, 13, 8]);
    let normalized = reference::group_norm(x.values(), scale.values(), shift.values(), 4, 1e-6, true);
    let normalized: Vec<f32> = normalized.into_iter().map(|value| value as f32).collect();
    let expected = |values: &[f32], kernel: usize| {
        let weight = scope.tensor("weight", &[12, 8, kernel, kernel]).unwrap();
        let shape = ConvShape { kernel, stride: 1, padding_before: kernel / 2, padding_after: kernel / 2 };
        let image = Image { values, height: 7, width: 13, channels: 8 };
        reference::conv2d(image, shape, weight.values(), scope.tensor("bias", &[12]).unwrap().values())
    };
    let main = expected(&normalized, 3);
    assert_same(of_product(1e-6), conv.forward_normalized(&norm, &x), &main);
    let residual = normal(20, &[7, 13, 12]);
    let sum: Vec<f64> = main.iter().zip(residual.values()).map(|(a, b)| a + f64::from(*b)).collect();
    assert_same(of_product(1e-6), conv.add_normalized(&norm, &x, residual), &sum);
    let (a, b) = conv.forward_with_shortcut(&norm, &shortcut, x.clone()).unwrap();
    assert_same(of_product(1e-6), Ok(a), &main);
    assert_same(of_product(1e-6), Ok(b), &expected(x.values(), 1));
}

#[test]
fn images_in_bands_equal_whole_images() {
    let outputs = |gpu: Gpu, are_bands: bool| -> Vec<Tensor> {
        let weights = Weights::random().on(&placement_on(&gpu));
        let scope = weights.root();
        let conv = Conv2d::load(&scope.at("conv"), 8, 12, 3).unwrap();
        let shortcut = Conv2d::load(&scope.at("shortcut"), 8, 12, 1).unwrap();
        let second = Conv2d::load(&scope.at("second"), 12, 12, 3).unwrap();
        let down = Conv2d::load_downsample(&scope.at("down"), 12).unwrap();
        let norm = |name: &str, channels| GroupNorm::load(&scope.at(name), 4, channels, 1e-6).unwrap();
        let (norm, second_norm) = (norm("norm", 8), norm("second_norm", 12));
        let x = Tensor::on_gpu(normal(32, &[7, 11, 8]).view(&gpu).unwrap(), &[7, 11, 8]).unwrap();
        let up = Conv2d::load(&scope.at("up"), 8, 8, 3).unwrap().forward_upsampled(&x).unwrap();
        let (h, residual) = conv.forward_with_shortcut(&norm, &shortcut, up.clone()).unwrap();
        let sum = second.add_normalized(&second_norm, &h, residual.clone()).unwrap();
        let images = [
            activate(add(sum.clone(), &h).unwrap(), Activation::Relu).unwrap(),
            down.forward(&sum).unwrap(),
            conv.forward(&up).unwrap(),
            up,
            h,
            residual,
            sum.rows(3..12).unwrap(),
            sum,
        ];
        assert!(images.iter().all(|image| (image.bands().len() > 1) == are_bands));
        let [.., sum] = &images;
        let copies = [
            sum.permute([2, 0, 1]).unwrap(),
            sum.reshape(&[14 * 22, 12]).unwrap(),
            second_norm.forward(sum).unwrap(),
            Tensor::concat(&[sum, sum]).unwrap(),
        ];
        images.iter().chain(&copies).map(|tensor| tensor.on_cpu().unwrap()).collect()
    };
    // The bands have several rows, and the last one has fewer.
    let bands = outputs(unshared_in_bands(4 * 22 * 12 * 3), true);
    for (index, (band, whole)) in bands.iter().zip(outputs(unshared(), false)).enumerate() {
        assert_eq!(band.shape(), whole.shape());
        // The statistics of a group are joined in another order.
        let difference = greatest(band.values().iter().zip(whole.values()).map(|(a, b)| f64::from(a - b)));
        assert!(difference <= 1e-5, "image {index} differs by {difference}");
    }
}

#[test]
fn copies_equal_those_in_memory() {
    let x = normal(26, &[3, 5, 4, 2, 7]);
    let y = normal(27, &[2, 5, 4, 2, 7]);
    let equal = |actual: Tensor, expected: Tensor| {
        assert_eq!(actual.shape(), expected.shape());
        assert!(actual.gpu().is_some());
        assert_eq!(actual.on_cpu().unwrap().values(), expected.values());
    };
    equal(unaligned(&x).permute([4, 0, 2, 1, 3]).unwrap(), x.permute([4, 0, 2, 1, 3]).unwrap());
    equal(Tensor::concat(&[&unaligned(&x), &y]).unwrap(), Tensor::concat(&[&x, &y]).unwrap());
    equal(on_gpu(&x).rows(1..3).unwrap(), x.rows(1..3).unwrap());
}

#[test]
fn a_gpu_is_chosen_by_its_index_or_a_part_of_its_name() {
    let devices = devices();
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device.index, index);
        let name = device.name.to_uppercase();
        for choice in [GpuChoice::Index(index), GpuChoice::Name(name.get(..4).unwrap_or(&name).into())] {
            let (target, fallback) = Device::Gpu(choice).open(u64::MAX, MemoryBudget::Available).unwrap();
            assert!(matches!(target, Target::Gpu(_)) && fallback.is_none());
        }
    }
    assert!(devices.is_sorted_by_key(|device| device.kind), "{devices:?}");
    for choice in [GpuChoice::Index(99), GpuChoice::Name("Voodoo".into())] {
        let error = Device::Gpu(choice.clone()).open(0, MemoryBudget::Available).unwrap_err().to_string();
        assert!(error.contains(&choice.to_string()) && error.contains(&devices[0].name), "{error}");
    }
}

#[test]
fn a_software_adapter_is_never_the_default() {
    let hardware = devices().iter().any(|device| device.kind != GpuKind::Software);
    let (target, fallback) = Device::Auto.open(0, MemoryBudget::Available).unwrap();
    if hardware {
        assert!(matches!(target, Target::Gpu(_)) && fallback.is_none());
    } else {
        assert!(matches!(target, Target::Cpu) && fallback.unwrap().contains("only a software adapter"));
    }
}

#[test]
fn dropped_tensors_leave_no_buffer_behind() {
    let gpu = unshared();
    for _ in 0..3 {
        let x = Tensor::on_gpu(normal(1, &[40, 50]).view(&gpu).unwrap(), &[40, 50]).unwrap();
        let y = add(x.clone(), &x).unwrap();
        assert!(gpu.in_use() > 0);
        drop((x, y));
        assert_eq!(gpu.in_use(), 0);
    }
}

#[test]
fn a_buffer_that_is_too_large_is_an_error_after_which_the_gpu_computes() {
    let error = gpu().buffer(1 << 40).unwrap_err().to_string();
    assert!(error.contains(&devices()[0].name) && error.contains("4398046511104 bytes"), "{error}");
    let x = normal(1, &[4]);
    assert_same(1e-6, add(on_gpu(&x), &x), &x.values().iter().map(|x| 2.0 * f64::from(*x)).collect::<Vec<_>>());
}

#[test]
fn products_of_large_values_are_finite() {
    // The first rows exceed the range of f16, and the last ones are subnormal in f16.
    let scale = |row: usize| [1e9, 70_000.0, 1.0, 1e-6, 1e-20][row % 5];
    let (rows, inputs, outputs) = (40, 48, 20);
    let x = normal(30, &[rows, inputs]);
    let x: Vec<f32> = x.values().iter().enumerate().map(|(index, value)| value * scale(index / inputs)).collect();
    let x = Tensor::new(x, &[rows, inputs]).unwrap();
    // The weights are the largest ones of f16, or greater.
    for largest in [60_000.0, 1e8] {
        let weight = normal(31, &[outputs, inputs]).map(|value| (value * largest).clamp(-largest, largest));
        let expected = reference::linear(x.values(), weight.values(), inputs);
        let actual = linear(Values::F32(weight.into_values()), inputs, outputs, None).forward(&x);
        let actual = actual.unwrap().on_cpu().unwrap();
        for (row, (actual, expected)) in actual.values().chunks(outputs).zip(expected.chunks(outputs)).enumerate() {
            let difference = greatest(actual.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
            let largest = greatest(expected.iter().copied());
            assert!(difference <= of_product(1e-6) * largest, "row {row} differs by {difference} of {largest}");
        }
    }
}

/// The script `tools/gpu_matrices.sh` sets the variable.
#[test]
fn the_expected_matrices_are_used() {
    let sides = [gpu().matrices(), gpu().attention_matrices()].map(|matrices| Some(matrices?.side));
    if let Ok(expected) = std::env::var("LUMENFALL_TEST_MATRICES") {
        assert_eq!(sides, [Some(expected.parse().unwrap()); 2], "{:?}", gpu().report());
    }
    let device = &devices()[0];
    assert_eq!(sides, [device.matrices, device.attention_matrices]);
    assert_eq!(device.note.is_none(), sides.iter().all(Option::is_some));
    let precise = gpu().with_full_precision();
    assert_eq!((precise.matrices(), precise.attention_matrices()), (None, None));
}

#[test]
fn another_process_reads_the_kernels_and_the_result_of_the_self_test() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = &adapters::all()[0];
    let open = || {
        let cache = Cache::at(folder.path());
        Gpu::open(adapter, Options { cache, ..Options::new(adapter) }).unwrap()
    };
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    };
    let first = open();
    let [kernels, report] = files().try_into().unwrap();
    // The driver determines the data that follow wgpu's header. That of lavapipe stores none.
    let stored = || Cache::at(folder.path()).read(kernels.file_name().unwrap().to_str().unwrap());
    assert!(stored().unwrap().starts_with(b"WGPUPLCH"));
    // A report that only a file can contain.
    let changed = Report { note: Some("as in the file".into()), ..Report::default() };
    assert_ne!(first.report(), Some(&changed));
    let name = report.file_name().unwrap().to_str().unwrap();
    Cache::at(folder.path()).write(name, &serde_json::to_vec(&changed).unwrap());
    let second = open();
    assert_eq!(second.report(), Some(&changed));
    let x = Tensor::new(vec![1.0; 4], &[4]).unwrap();
    let sum = |gpu: &Gpu| add(Tensor::on_gpu(x.view(gpu).unwrap(), &[4]).unwrap(), &x).unwrap().on_cpu().unwrap();
    // A kernel that is new is stored, once.
    for is_new in [true, false] {
        std::fs::remove_file(&kernels).unwrap();
        assert_eq!(sum(&second).values(), [2.0; 4]);
        assert_eq!(kernels.exists(), is_new);
        std::fs::write(&kernels, "corrupt").unwrap();
    }
    // Files that are corrupt, or have another format.
    std::fs::write(&report, "corrupt").unwrap();
    Cache::at(folder.path()).write(kernels.file_name().unwrap().to_str().unwrap(), b"another format");
    let third = open();
    assert_eq!(third.report(), first.report());
    assert_eq!(sum(&third).values(), [2.0; 4]);
}

/// On a real GPU, kernels have no runtime checks.
#[test]
#[ignore = "the software drivers of Debian 12 compile it for minutes; `tools/gpu_matrices.sh` runs it"]
fn kernels_without_runtime_checks_equal_the_layers_on_the_cpu() {
    let adapter = &adapters::all()[0];
    let gpu = Gpu::open(adapter, Options { has_checks: false, ..Options::new(adapter) }).unwrap();
    let outputs = |target: &Target| -> Vec<Tensor> {
        let placement = Placement::default();
        placement.set(target.clone());
        let weights = Weights::random().on(&placement);
        let scope = weights.root();
        let place = |x: &Tensor| match target {
            Target::Cpu => x.clone(),
            Target::Gpu(gpu) => Tensor::on_gpu(x.view(gpu).unwrap(), x.shape()).unwrap(),
        };
        let (x, image) = (place(&normal(40, &[20, 64])), place(&normal(41, &[5, 6, 8])));
        let product = Linear::new(encoded(Format::Q8_0, 64 * 12), 64, 12, None).moved_to(&scope).unwrap();
        vec![
            product.forward_activated(&x, Activation::GeluErf).unwrap(),
            LayerNorm::load(&scope.at("norm"), 64, 1e-5).unwrap().forward(&x).unwrap(),
            RmsNorm::load(&scope.at("norm"), 32, 1e-6).unwrap().forward(&x).unwrap(),
            // A head of 10 values uses products and a softmax.
            attention(&x, &x, &x, 2, 0.1, Mask::Causal).unwrap(),
            attention(
                &place(&normal(42, &[7, 10])),
                &place(&normal(43, &[9, 10])),
                &place(&normal(44, &[9, 10])),
                1,
                0.3,
                Mask::None,
            )
            .unwrap(),
            GroupNorm::load(&scope.at("groups"), 2, 8, 1e-6).unwrap().forward(&image).unwrap(),
            Conv2d::load(&scope.at("conv"), 8, 4, 3).unwrap().forward(&image).unwrap(),
            gated_residual(x.clone(), &x, &normal(45, &[64])).unwrap(),
            x.permute([1, 0]).unwrap(),
        ]
    };
    let tolerance = if gpu.matrices().is_some() { 2e-3 } else { 3e-6 };
    for (index, (actual, expected)) in outputs(&Target::Gpu(gpu)).iter().zip(outputs(&Target::Cpu)).enumerate() {
        assert!(actual.gpu().is_some());
        let (actual, expected) = (actual.on_cpu().unwrap(), expected.on_cpu().unwrap());
        let difference = greatest(actual.values().iter().zip(expected.values()).map(|(a, b)| f64::from(a - b)));
        let largest = greatest(expected.values().iter().map(|value| f64::from(*value)));
        assert!(difference <= tolerance * largest, "output {index} differs by {difference} of {largest}");
    }
}
