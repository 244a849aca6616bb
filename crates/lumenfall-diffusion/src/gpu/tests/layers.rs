//! Products, activations, norms, attention and copies.

use lumenfall_kernels::reference;

use super::*;

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
