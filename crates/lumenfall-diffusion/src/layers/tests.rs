//! Compares each layer with plain loops in f64.

use half::{bf16, f16};

use super::*;
use crate::error::Result;
use crate::kernels::{ConvShape, Image, reference};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::{Format, Values, Weights};

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

const ACTIVATIONS: [Activation; 4] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu, Activation::Silu];

#[test]
fn linear_layers_match() {
    for (tokens, inputs, outputs) in [(1, 48, 96), (37, 33, 65), (130, 64, 256)] {
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
    // More than one panel, and a last panel that is not full.
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
    let (inputs, outputs) = (96, 7);
    let block = [f16::ONE.to_le_bytes().as_slice(), &[3; 32]].concat();
    let mut values = Values::with_capacity(Format::Q8_0, inputs * outputs);
    values.extend_from_bytes(&block.repeat(inputs * outputs / 32));
    let layer = Linear::new(values, inputs, outputs, None);
    let x = Tensor::new(vec![1.0; inputs], &[1, inputs]).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    let y = pool.install(|| layer.forward(&x).unwrap());
    assert_eq!(y.values(), [288.0; 7]);
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

#[test]
fn convolutions_match_for_images_of_any_shape() {
    let weights = Weights::random();
    let scope = weights.root().at("conv");
    let shape =
        |kernel, stride, padding_before, padding_after| ConvShape { kernel, stride, padding_before, padding_after };
    let convolutions = [
        (12, shape(3, 1, 1, 1), Conv2d::load(&scope, 8, 12, 3).unwrap()),
        (5, shape(1, 1, 0, 0), Conv2d::load(&scope, 8, 5, 1).unwrap()),
        (8, shape(3, 2, 0, 1), Conv2d::load_downsample(&scope, 8).unwrap()),
    ];
    for (height, width) in [(2, 2), (7, 13), (40, 100), (33, 64)] {
        let x = normal(19, &[height, width, 8]);
        let image = Image { values: x.values(), height, width, channels: 8 };
        for (outputs, shape, conv) in &convolutions {
            let weight = scope.tensor("weight", &[*outputs, 8, shape.kernel, shape.kernel]).unwrap();
            let bias = scope.tensor("bias", &[*outputs]).unwrap();
            let expected = reference::conv2d(image, *shape, weight.values(), bias.values());
            assert_same(1e-5, conv.forward(&x), &expected);
        }
        let doubled = upsample(&x).unwrap();
        assert_eq!(doubled.shape(), [2 * height, 2 * width, 8]);
        for (index, value) in doubled.values().iter().enumerate() {
            let (row, column, channel) = (index / (16 * width), index / 8 % (2 * width), index % 8);
            assert_eq!(*value, x.values()[(row / 2 * width + column / 2) * 8 + channel]);
        }
    }
}

#[test]
fn group_norm_matches_with_and_without_silu() {
    let weights = Weights::random();
    let scope = weights.root().at("norm");
    let norm = GroupNorm::load(&scope, 4, 24, 1e-6).unwrap();
    let (weight, bias) = (scope.tensor("weight", &[24]).unwrap(), scope.tensor("bias", &[24]).unwrap());
    for (height, width) in [(3, 5), (40, 61)] {
        let x = normal(21, &[height, width, 24]).map(|value| value + 0.5);
        for silu in [true, false] {
            let expected = reference::group_norm(x.values(), weight.values(), bias.values(), 4, 1e-6, silu);
            assert_same(1e-5, norm.forward(&x, silu), &expected);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let weights = Weights::random();
    let conv = Conv2d::load(&weights.root().at("conv"), 16, 24, 3).unwrap();
    let norm = GroupNorm::load(&weights.root().at("norm"), 4, 16, 1e-6).unwrap();
    let layer = linear(22, 400, 700, Some(normal(23, &[700])));
    let (x, image) = (normal(24, &[333, 400]), normal(25, &[70, 50, 16]));
    let compute = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let attended = attention(&x, &x, &x, 4, 0.1, Mask::None).unwrap();
            let convolved = conv.forward(&norm.forward(&image, true).unwrap()).unwrap();
            let linear = layer.forward_activated(&x, Activation::GeluTanh).unwrap();
            [linear, attended, convolved].map(Tensor::into_values)
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
}
