//! Compares the speed of the layers with that of a plain loop of multiplications, which is timed in the same run.
//!
//! The test is ignored by default, because other tests would take time of its measurements. `.ci/run` runs it alone.

use std::hint::black_box;
use std::time::Instant;

use half::f16;
use lumenfall_kernels::{
    self as kernels, ConvShape, Convolution, Format, Image, Mask, Sequence, Source, Values, Write, reference,
};

use crate::checkpoint::Part;
use crate::checkpoint::config::VaeConfig;
use crate::layers::Linear;
use crate::models::Vae;
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::Weights;

/// The number of measurements. The fastest one counts, and each is short, so that other programs do not matter much.
const ROUNDS: usize = 100;

/// Computes a layer, and returns the number of multiplications.
type Layer = Box<dyn Fn() -> usize + Sync>;

/// Returns the multiplications per second of a function that returns their number.
fn rate(compute: impl FnOnce() -> usize) -> f64 {
    let start = Instant::now();
    let count = compute();
    count as f64 / start.elapsed().as_secs_f64()
}

fn linear() -> impl Fn() -> usize {
    let (tokens, width) = (128, 512);
    let weight = Generator::new(1).normal(width * width);
    let mut values = Values::with_capacity(Format::F16, weight.len());
    values.extend_from_bytes(&weight.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect::<Vec<_>>());
    let layer = Linear::new(values, width, width, None);
    let x = Tensor::new(Generator::new(2).normal(tokens * width), &[tokens, width]).unwrap();
    move || {
        black_box(layer.forward(&x).unwrap());
        tokens * width * width
    }
}

fn attention() -> impl Fn() -> usize {
    let (tokens, heads, dim) = (384, 2, 64);
    let width = heads * dim;
    let [q, k, v] = [1, 2, 3].map(|seed| Generator::new(seed).normal(tokens * width));
    move || {
        let [q, k, v] = [&q, &k, &v].map(|values| Sequence { values, width });
        black_box(kernels::attention(q, k, v, heads, 0.125, Mask::None));
        2 * tokens * tokens * width
    }
}

/// A 3×3 convolution, which uses Winograd's algorithm if its stride is 1. The multiplications are those of the direct algorithm.
fn convolution(stride: usize) -> impl Fn() -> usize {
    let (side, channels) = (32 * stride, 64);
    let shape = ConvShape { kernel: 3, stride, padding_before: 1, padding_after: 1 };
    let [x, weight] = [(1, side * side), (2, 9 * channels)].map(|(seed, n)| Generator::new(seed).normal(n * channels));
    let bias = vec![0.5; channels];
    let pixels = shape.output_side(side).pow(2);
    move || {
        let mut out = vec![0.0; pixels * channels];
        let source = Source::plain(Image { values: &x, height: side, width: side, channels });
        Convolution::new(shape, &weight, &bias, pixels).compute(&source, 0, Write::Replace, &mut out);
        black_box(out);
        9 * pixels * channels * channels
    }
}

/// The decoder of an image autoencoder: convolutions with norms, an attention, and images that are enlarged.
fn decoder() -> impl Fn() -> usize {
    let (side, channels) = (16, 32);
    let config = VaeConfig {
        in_channels: 3,
        out_channels: 3,
        latent_channels: 16,
        block_out_channels: vec![channels, channels],
        layers_per_block: 1,
        norm_num_groups: 8,
        scaling_factor: 1.0,
        shift_factor: 0.0,
        use_quant_conv: false,
        use_post_quant_conv: false,
    };
    let vae = Vae::open(Part { weights: Weights::random(), config }).unwrap();
    vae.keep_decoder(true);
    let latent = Tensor::new(Generator::new(1).normal(16 * side * side), &[16, side, side]).unwrap();
    move || {
        black_box(vae.decode(&latent, &|| Ok(())).unwrap());
        // Of the convolutions in the ResNet blocks: 4 blocks at the size of the latent, 2 at twice its size.
        9 * channels * channels * side * side * (4 * 2 + 4 * 2 * 2)
    }
}

#[test]
#[ignore = "needs an idle processor"]
fn no_layer_is_much_slower_than_a_loop_of_multiplications() {
    // The multiplications per second must be at least this part of those of the loop. Each bound is 0.6 of the value on an
    // Intel Xeon with two units for AVX-512, so that a layer that takes twice as long there fails. With one unit, as in Zen 4, the
    // values are about twice as high.
    let layers: [(&str, f64, Layer); 5] = [
        ("linear, f16", 0.11, Box::new(linear())),
        ("attention", 0.09, Box::new(attention())),
        ("convolution, Winograd", 0.24, Box::new(convolution(1))),
        ("convolution, direct", 0.12, Box::new(convolution(2))),
        ("decoder", 0.13, Box::new(decoder())),
    ];
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let (mut fastest_loop, mut fastest) = (0f64, [0f64; 5]);
    pool.install(|| {
        for _ in 0..ROUNDS {
            fastest_loop = fastest_loop.max(rate(reference::multiplications));
            for (fastest, (_, _, layer)) in fastest.iter_mut().zip(&layers) {
                *fastest = fastest.max(rate(layer));
            }
        }
    });
    println!("loop: {:.1} thousand million multiplications per second", fastest_loop / 1e9);
    let ratios = fastest.map(|rate| rate / fastest_loop);
    for ((name, bound, _), ratio) in layers.iter().zip(ratios) {
        println!("{name}: {ratio:.2} of the loop, at least {bound}");
    }
    for ((name, bound, _), ratio) in layers.iter().zip(ratios) {
        assert!(ratio >= *bound, "{name}: {ratio:.2} of the loop; at least {bound} is required");
    }
}
