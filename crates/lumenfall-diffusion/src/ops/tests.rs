//! Compares each fused operation with the reference.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::{Activation, Conv2d, GroupNorm, Linear, Mask, Ops};
use crate::noise::Generator;
use crate::weights::{Format, Values, Weights};

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let values = Generator::new(seed).normal(shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn linear(seed: u64, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Linear {
    Linear::new(Values::F32(Generator::new(seed).normal(inputs * outputs)), inputs, outputs, bias)
}

/// Asserts that both implementations agree within `tolerance` times the largest value.
fn assert_same(tolerance: f32, compute: impl Fn(Ops) -> candle_core::Result<Tensor>) {
    let fused = compute(Ops::Fused).unwrap();
    let reference = compute(Ops::Reference).unwrap();
    assert_eq!(fused.shape(), reference.shape());
    let largest = reference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let difference = (fused - reference).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(difference <= tolerance * largest, "differs by {difference}; the largest value is {largest}");
}

#[test]
fn linear_layers_match() {
    for (tokens, inputs, outputs) in [(1, 48, 96), (37, 33, 65), (130, 64, 256)] {
        let x = normal(1, &[tokens, inputs]);
        let biased = linear(2, inputs, outputs, Some(normal(3, &[outputs])));
        let plain = linear(2, inputs, outputs, None);
        assert_same(1e-5, |ops| ops.linear(&x, &biased));
        assert_same(1e-5, |ops| ops.linear(&x, &plain));
        for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu, Activation::Silu] {
            assert_same(1e-5, |ops| ops.linear_activation(&x, &biased, activation));
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
        let [stored, widened] = [stored, widened].map(|layer| Ops::Fused.linear(&x, &layer).unwrap());
        let greatest = |y: &Tensor| y.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let difference = greatest(&(stored - &widened).unwrap());
        assert!(greatest(&widened) > 1.0 && difference < 1e-6 * greatest(&widened), "{format:?}: {difference}");
    }
}

#[test]
fn linear_layers_accept_a_column_range_of_a_matrix() {
    let wide = normal(4, &[9, 70]);
    let layer = linear(5, 20, 8, None);
    assert_same(1e-5, |ops| ops.linear(&wide.narrow(1, 31, 20)?, &layer));
}

#[test]
fn activations_match_beyond_the_range_of_the_exponential() {
    let x = Tensor::new(&[-1e4f32, -120.0, -90.0, -30.0, -1.0, -0.0, 0.0, 1e-30, 0.5, 30.0, 90.0, 1e4], &Device::Cpu)
        .unwrap();
    for activation in [Activation::GeluTanh, Activation::GeluErf, Activation::QuickGelu, Activation::Silu] {
        assert_same(1e-6, |ops| ops.activate(&x, activation));
    }
}

#[test]
fn norms_match() {
    for (tokens, width) in [(1, 16), (77, 48), (300, 1536)] {
        let x = (normal(6, &[tokens, width]) * 3.0).unwrap();
        let x = (x + 1.0).unwrap();
        let (a, b) = (normal(7, &[width]), normal(8, &[width]));
        assert_same(1e-5, |ops| ops.norm_modulate(&x, &a, &b, 1e-6));
        assert_same(1e-5, |ops| ops.layer_norm(&x, &a, &b, 1e-5));
        assert_same(1e-5, |ops| ops.rms_norm(&x, &a, 1e-6));
        let head = normal(9, &[width / 2]);
        assert_same(1e-5, |ops| ops.rms_norm(&x, &head, 1e-6));
    }
}

#[test]
fn attention_matches_for_every_mask() {
    for (queries, keys, heads, dim) in [(5, 5, 1, 16), (77, 77, 3, 32), (130, 200, 2, 64)] {
        let (q, k, v) =
            (normal(10, &[queries, heads * dim]), normal(11, &[keys, heads * dim]), normal(12, &[keys, heads * dim]));
        let bias = normal(13, &[heads, queries, keys]);
        assert_same(1e-5, |ops| ops.attention(&q, &k, &v, heads, 0.2, Mask::None));
        assert_same(1e-5, |ops| ops.attention(&q, &k, &v, heads, 0.2, Mask::Bias(&bias)));
        if queries == keys {
            assert_same(1e-5, |ops| ops.attention(&q, &k, &v, heads, 0.2, Mask::Causal));
        }
    }
}

#[test]
fn attention_matches_for_scores_beyond_the_range_of_the_exponential() {
    let q = (normal(14, &[4, 8]) * 200.0).unwrap();
    let v = normal(15, &[4, 8]);
    assert_same(1e-5, |ops| ops.attention(&q, &q, &v, 1, 1.0, Mask::None));
}

#[test]
fn residuals_and_products_match() {
    let (x, y, gate) = (normal(16, &[55, 48]), normal(17, &[55, 48]), normal(18, &[48]));
    assert_same(1e-6, |ops| ops.gated_residual(&x, &y, &gate));
    assert_same(1e-6, |ops| ops.add(&x, &y));
    assert_same(1e-6, |ops| ops.multiply(&x, &y));
}

#[test]
fn convolutions_match_for_images_of_any_shape() {
    let weights = Weights::random(&Device::Cpu);
    let scope = weights.root();
    let convolutions = [
        (8, Conv2d::load(&scope.at("same"), 8, 12, 3).unwrap()),
        (8, Conv2d::load(&scope.at("pointwise"), 8, 5, 1).unwrap()),
        (8, Conv2d::load_downsample(&scope.at("down"), 8).unwrap()),
    ];
    for (height, width) in [(2, 2), (7, 13), (40, 100), (33, 64)] {
        for (channels, conv) in &convolutions {
            let x = normal(19, &[height, width, *channels]);
            assert_same(1e-5, |ops| ops.conv2d(&x, conv));
        }
        let x = normal(20, &[height, width, 6]);
        assert_same(0.0, |ops| ops.upsample(&x));
    }
}

#[test]
fn group_norm_matches_with_and_without_silu() {
    let weights = Weights::random(&Device::Cpu);
    let norm = GroupNorm::load(&weights.root().at("norm"), 4, 24, 1e-6).unwrap();
    for (height, width) in [(3, 5), (40, 61)] {
        let x = (normal(21, &[height, width, 24]) + 0.5).unwrap();
        assert_same(1e-5, |ops| ops.group_norm(&x, &norm, true));
        assert_same(1e-5, |ops| ops.group_norm(&x, &norm, false));
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let weights = Weights::random(&Device::Cpu);
    let conv = Conv2d::load(&weights.root().at("conv"), 16, 24, 3).unwrap();
    let norm = GroupNorm::load(&weights.root().at("norm"), 4, 16, 1e-6).unwrap();
    let layer = linear(22, 400, 700, Some(normal(23, &[700])));
    let (x, image) = (normal(24, &[333, 400]), normal(25, &[70, 50, 16]));
    let compute = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let ops = Ops::Fused;
            let attended = ops.attention(&x, &x, &x, 4, 0.1, Mask::None).unwrap();
            let convolved = ops.conv2d(&ops.group_norm(&image, &norm, true).unwrap(), &conv).unwrap();
            [ops.linear_activation(&x, &layer, Activation::GeluTanh).unwrap(), attended, convolved]
                .map(|y| y.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        })
    };
    let one = compute(1);
    for threads in [2, 3, 7] {
        assert_eq!(compute(threads), one, "{threads} threads");
    }
}

#[test]
fn other_dtypes_and_shapes_are_rejected() {
    let half = normal(26, &[2, 4]).to_dtype(DType::F16).unwrap();
    let layer = linear(27, 4, 3, None);
    assert!(Ops::Fused.linear(&half, &layer).is_err());
    assert!(Ops::Fused.linear(&normal(28, &[2, 5]), &layer).is_err());
}
