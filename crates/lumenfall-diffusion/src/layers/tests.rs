//! Compares each layer with plain loops in f64.

use half::{bf16, f16};
use lumenfall_kernels::{ConvShape, Format, Image, Values, reference};

use super::*;
use crate::error::Result;
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(Generator::new(seed).normal(shape.iter().product()), shape).unwrap()
}

fn linear(seed: u64, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Linear {
    Linear::new(Values::F32(Generator::new(seed).normal(inputs * outputs)), inputs, outputs, bias)
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).fold(0.0, f64::max)
}

/// Asserts that the values agree within `tolerance` times the largest value.
#[track_caller]
fn assert_same(tolerance: f64, actual: Result<Tensor>, expected: &[f64]) {
    let actual = actual.unwrap();
    assert_eq!(actual.len(), expected.len());
    let largest = greatest(expected.iter().copied());
    let difference = greatest(actual.values().iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    assert!(difference <= tolerance * largest, "differs by {difference}; the largest value is {largest}");
}

const ACTIVATIONS: [Activation; 5] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu, Activation::Silu, Activation::Relu];

#[test]
fn linear_layers_match() {
    // The last layer is converted in more than one part of inputs and of outputs.
    for (tokens, inputs, outputs) in [(1, 48, 96), (37, 33, 65), (130, 64, 256), (7, 4100, 70)] {
        let (x, bias) = (normal(1, &[tokens, inputs]), normal(3, &[outputs]));
        let plain = reference::linear(x.values(), normal(2, &[outputs, inputs]).values(), inputs);
        assert_same(1e-5, linear(2, inputs, outputs, None).forward(&x), &plain);
        let biased = linear(2, inputs, outputs, Some(bias.clone()));
        let bias = bias.values().iter().cycle().map(|bias| f64::from(*bias));
        let expected: Vec<f64> = plain.iter().zip(bias).map(|(value, bias)| value + bias).collect();
        assert_same(1e-5, biased.forward(&x), &expected);
        for activation in ACTIVATIONS {
            let expected: Vec<f64> = expected.iter().map(|value| reference::activate(*value, activation)).collect();
            assert_same(1e-5, biased.forward_activated(&x, activation), &expected);
        }
    }
}

#[test]
fn the_format_of_a_weight_does_not_change_the_result() {
    // More than one part, and last parts that are not full.
    let (inputs, outputs) = (3000, 701);
    let x = normal(6, &[5, inputs]);
    let weight = Generator::new(7).normal(inputs * outputs);
    type Encode = fn(f32) -> Vec<u8>;
    let formats: [(Format, Encode); 4] = [
        (Format::F16, |value| f16::from_f32(value).to_le_bytes().to_vec()),
        (Format::Bf16, |value| bf16::from_f32(value).to_le_bytes().to_vec()),
        // The upper half of an f16 is a valid code of both 8-bit formats.
        (Format::F8E5m2, |value| vec![f16::from_f32(value).to_le_bytes()[1]]),
        (Format::F8E4m3, |value| vec![f16::from_f32(value).to_le_bytes()[1]]),
    ];
    for (format, encode) in formats {
        let mut values = Values::with_capacity(format, inputs * outputs);
        values.extend_from_bytes(&weight.iter().flat_map(|value| encode(*value)).collect::<Vec<_>>());
        let widened = Linear::new(Values::F32(values.clone().into_f32()), inputs, outputs, None);
        let stored = Linear::new(values, inputs, outputs, None);
        let [stored, widened] = [stored, widened].map(|layer| layer.forward(&x).unwrap());
        let largest = greatest(widened.values().iter().map(|value| f64::from(*value)));
        let difference = stored.zip_with(&widened, |a, b| a - b).unwrap();
        let difference = greatest(difference.values().iter().map(|value| f64::from(*value)));
        assert!(largest > 1.0 && difference < 1e-6 * largest, "{format:?}: {difference}");
    }
}

#[test]
fn the_rows_of_a_quantised_weight_can_be_divided_among_threads() {
    // Several tasks of rows, each of which has other values.
    let (inputs, outputs) = (96, 300);
    let block = |index: usize| [f16::ONE.to_le_bytes().as_slice(), &[(index / 3 % 100) as u8; 32]].concat();
    let mut values = Values::with_capacity(Format::Q8_0, inputs * outputs);
    values.extend_from_bytes(&(0..inputs * outputs / 32).flat_map(block).collect::<Vec<_>>());
    let layer = Linear::new(values, inputs, outputs, None);
    let x = Tensor::new(vec![1.0; inputs], &[1, inputs]).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let y = pool.install(|| layer.forward(&x).unwrap());
    assert_eq!(y.values(), (0..outputs).map(|row| (row % 100 * 96) as f32).collect::<Vec<_>>());
}

#[test]
fn activations_match_beyond_the_range_of_the_exponential() {
    let x = vec![-1e4f32, -120.0, -90.0, -30.0, -1.0, -0.0, 0.0, 1e-30, 0.5, 30.0, 90.0, 1e4];
    for activation in ACTIVATIONS {
        let expected: Vec<f64> = x.iter().map(|x| reference::activate(f64::from(*x), activation)).collect();
        assert_same(1e-6, activate(Tensor::new(x.clone(), &[x.len()]).unwrap(), activation), &expected);
    }
}

#[test]
fn norms_match() {
    for (tokens, width) in [(1, 16), (77, 48), (300, 1536)] {
        let x = normal(6, &[tokens, width]).map(|value| value * 3.0 + 1.0);
        let (a, b) = (normal(7, &[width]), normal(8, &[width]));
        let expected = reference::layer_norm(x.values(), 1e-6, 1.0, b.values(), a.values());
        assert_same(1e-5, norm_modulate(&x, &a, &b, 1e-6), &expected);

        let weights = Weights::random();
        let scope = weights.root().at("norm");
        let (weight, bias) = (scope.tensor("weight", &[width]).unwrap(), scope.tensor("bias", &[width]).unwrap());
        let expected = reference::layer_norm(x.values(), 1e-5, 0.0, weight.values(), bias.values());
        assert_same(1e-5, LayerNorm::load(&scope, width, 1e-5).unwrap().forward(&x), &expected);
        for group in [width, width / 2] {
            let weight = scope.tensor("weight", &[group]).unwrap();
            let expected = reference::rms_norm(x.values(), 1e-6, weight.values());
            assert_same(1e-5, RmsNorm::load(&scope, group, 1e-6).unwrap().forward(&x), &expected);
        }
    }
}

#[test]
fn attention_matches_for_every_mask() {
    for (queries, keys, heads, dim) in [(5, 5, 1, 16), (77, 77, 3, 32), (130, 200, 2, 64)] {
        let width = heads * dim;
        let [q, k, v] = [(10, queries), (11, keys), (12, keys)].map(|(seed, tokens)| normal(seed, &[tokens, width]));
        let bias = normal(13, &[heads, queries, keys]);
        let expected = |bias: &dyn Fn(usize, usize, usize) -> f64| {
            reference::attention([&q, &k, &v].map(Tensor::values), width, heads, 0.2, bias)
        };
        assert_same(1e-5, attention(&q, &k, &v, heads, 0.2, Mask::None), &expected(&|_, _, _| 0.0));
        let biased = |head, query, key| f64::from(bias.values()[(head * queries + query) * keys + key]);
        assert_same(1e-5, attention(&q, &k, &v, heads, 0.2, Mask::Bias(&bias)), &expected(&biased));
        if queries == keys {
            let causal = |_, query, key| if key > query { f64::NEG_INFINITY } else { 0.0 };
            assert_same(1e-5, attention(&q, &k, &v, heads, 0.2, Mask::Causal), &expected(&causal));
        }
    }
}

#[test]
fn attention_matches_for_scores_beyond_the_range_of_the_exponential() {
    let q = normal(14, &[4, 8]).map(|value| value * 200.0);
    let v = normal(15, &[4, 8]);
    let expected = reference::attention([&q, &q, &v].map(Tensor::values), 8, 1, 1.0, |_, _, _| 0.0);
    assert_same(1e-5, attention(&q, &q, &v, 1, 1.0, Mask::None), &expected);
}

#[test]
fn residuals_and_products_match() {
    let (x, y, gate) = (normal(16, &[55, 48]), normal(17, &[55, 48]), normal(18, &[48]));
    let expected = |combine: &dyn Fn(f64, f64, f64) -> f64| {
        let gate = gate.values().iter().cycle();
        let values = x.values().iter().zip(y.values()).zip(gate);
        values.map(|((x, y), gate)| combine(f64::from(*x), f64::from(*y), f64::from(*gate))).collect::<Vec<_>>()
    };
    assert_same(1e-6, gated_residual(x.clone(), &y, &gate), &expected(&|x, y, gate| x + gate * y));
    assert_same(1e-6, add(x.clone(), &y), &expected(&|x, y, _| x + y));
    assert_same(1e-6, multiply(x.clone(), &y), &expected(&|x, y, _| x * y));
}

fn image<'a>(values: &'a [f32], x: &Tensor) -> Image<'a> {
    let [height, width, channels] = x.dims().unwrap();
    Image { values, height, width, channels }
}

/// A convolution with its values, for the reference.
struct TestConv {
    layer: Conv2d,
    shape: ConvShape,
    weight: Tensor,
    bias: Tensor,
}

impl TestConv {
    fn new(scope: &Scope<'_>, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        let (before, after) = if stride == 1 { (kernel / 2, kernel / 2) } else { (0, 1) };
        let layer = match stride {
            1 => Conv2d::load(scope, inputs, outputs, kernel),
            _ => Conv2d::load_downsample(scope, inputs),
        };
        Self {
            layer: layer.unwrap(),
            shape: ConvShape { kernel, stride, padding_before: before, padding_after: after },
            weight: scope.tensor("weight", &[outputs, inputs, kernel, kernel]).unwrap(),
            bias: scope.tensor("bias", &[outputs]).unwrap(),
        }
    }

    fn reference(&self, x: Image<'_>) -> Vec<f64> {
        reference::conv2d(x, self.shape, self.weight.values(), self.bias.values())
    }
}

#[test]
fn convolutions_match_for_images_of_any_shape() {
    let weights = Weights::random();
    let scope = weights.root().at("conv");
    let convolutions = [(8, 12, 3, 1), (8, 5, 1, 1), (8, 8, 3, 2), (32, 48, 3, 1), (32, 40, 3, 1)];
    for (inputs, outputs, kernel, stride) in convolutions {
        let conv = TestConv::new(&scope, inputs, outputs, kernel, stride);
        for (height, width) in [(1, 1), (2, 2), (7, 13), (40, 51), (19, 64), (1, 300), (300, 1)] {
            if stride == 2 && height.min(width) == 1 {
                continue;
            }
            let x = normal(19, &[height, width, inputs]);
            assert_same(1e-5, conv.layer.forward(&x), &conv.reference(image(x.values(), &x)));
            if stride > 1 {
                continue;
            }
            let twice = [2 * height, 2 * width, inputs];
            let doubled = (0..twice.iter().product()).map(|index| {
                let (row, column, channel) =
                    (index / (2 * width * inputs), index / inputs % (2 * width), index % inputs);
                x.values()[(row / 2 * width + column / 2) * inputs + channel]
            });
            let doubled = Tensor::new(doubled.collect(), &twice).unwrap();
            let upsampled = conv.layer.forward_upsampled(&x).unwrap();
            assert_eq!(upsampled.values(), conv.layer.forward(&doubled).unwrap().values(), "{height}x{width}");
        }
    }
}

/// A group norm with its values, for the reference.
struct TestNorm {
    layer: GroupNorm,
    weight: Tensor,
    bias: Tensor,
}

impl TestNorm {
    fn new(scope: &Scope<'_>, channels: usize) -> Self {
        let [weight, bias] = ["weight", "bias"].map(|name| scope.tensor(name, &[channels]).unwrap());
        Self { layer: GroupNorm::load(scope, 4, channels, 1e-6).unwrap(), weight, bias }
    }

    fn reference(&self, x: &Tensor, silu: bool) -> Vec<f64> {
        reference::group_norm(x.values(), self.weight.values(), self.bias.values(), 4, 1e-6, silu)
    }
}

#[test]
fn group_norm_matches() {
    let weights = Weights::random();
    let norm = TestNorm::new(&weights.root().at("norm"), 24);
    for (height, width) in [(3, 5), (40, 61)] {
        let x = normal(21, &[height, width, 24]).map(|value| value + 0.5);
        assert_same(1e-5, norm.layer.forward(&x), &norm.reference(&x, false));
    }
}

#[test]
fn convolutions_of_normalized_images_match() {
    let weights = Weights::random();
    let scope = weights.root();
    // The second number of channels is large enough for Winograd's algorithm.
    for (inputs, outputs) in [(8, 12), (48, 32)] {
        let norm = TestNorm::new(&scope.at("norm"), inputs);
        let conv = TestConv::new(&scope.at("conv"), inputs, outputs, 3, 1);
        let shortcut = TestConv::new(&scope.at("shortcut"), inputs, outputs, 1, 1);
        // The last image has several bands.
        for (height, width) in [(1, 1), (21, 34), (150, 9)] {
            let x = normal(19, &[height, width, inputs]).map(|value| value + 0.5);
            let normalized: Vec<f32> = norm.reference(&x, true).iter().map(|value| *value as f32).collect();
            let expected = conv.reference(image(&normalized, &x));
            assert_same(1e-5, conv.layer.forward_normalized(&norm.layer, &x), &expected);

            let residual = normal(20, &[height, width, outputs]);
            let sum: Vec<f64> = expected.iter().zip(residual.values()).map(|(a, b)| a + f64::from(*b)).collect();
            assert_same(1e-5, conv.layer.add_normalized(&norm.layer, &x, residual), &sum);

            let both = conv.layer.forward_with_shortcut(&norm.layer, &shortcut.layer, x.clone()).unwrap();
            assert_same(1e-5, Ok(both.0), &expected);
            assert_same(1e-5, Ok(both.1), &shortcut.reference(image(x.values(), &x)));
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let weights = Weights::random();
    let convolutions = [(32, 32, 3), (32, 24, 3), (32, 32, 1)]
        .map(|(inputs, outputs, kernel)| Conv2d::load(&weights.root().at("conv"), inputs, outputs, kernel).unwrap());
    let norm = GroupNorm::load(&weights.root().at("norm"), 4, 32, 1e-6).unwrap();
    let layer = linear(22, 400, 700, Some(normal(23, &[700])));
    let (x, image) = (normal(24, &[333, 400]), normal(25, &[70, 50, 32]));
    let compute = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let attended = attention(&x, &x, &x, 4, 0.1, Mask::None).unwrap();
            let [winograd, direct, shortcut] = &convolutions;
            let direct = direct.forward_normalized(&norm, &image).unwrap();
            let (winograd, shortcut) = winograd.forward_with_shortcut(&norm, shortcut, image.clone()).unwrap();
            let linear = layer.forward_activated(&x, Activation::GeluTanh).unwrap();
            [linear, attended, direct, winograd, shortcut].map(Tensor::into_values)
        })
    };
    let one = compute(1);
    for threads in [2, 3, 7] {
        assert_eq!(compute(threads), one, "{threads} threads");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (x, layer) = (normal(28, &[2, 5]), linear(27, 4, 3, None));
    assert!(layer.forward(&x).is_err() && add(x.clone(), &normal(1, &[5, 2])).is_err());
    assert!(attention(&x, &x, &x, 3, 1.0, Mask::None).is_err());
    assert!(gated_residual(x.clone(), &x, &normal(1, &[4])).is_err());
    let weights = Weights::random();
    let conv = Conv2d::load(&weights.root().at("conv"), 4, 8, 3).unwrap();
    let norm = GroupNorm::load(&weights.root().at("norm"), 4, 4, 1e-6).unwrap();
    let (image, wider) = (normal(1, &[3, 3, 4]), normal(1, &[3, 3, 5]));
    assert!(conv.forward(&wider).is_err() && norm.forward(&wider).is_err());
    assert!(conv.add_normalized(&norm, &image, image.clone()).is_err());
}
