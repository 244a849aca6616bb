//! Layers whose kernels have one version only: they are computed on the GPU and on the CPU.

use lumenfall_kernels::{Activation, Format};

use crate::error::Result;
use crate::gpu::Gpu;
use crate::layers::{
    Conv2d, GroupNorm, LayerNorm, Linear, Mask, RmsNorm, activate, attention, gated_residual, norm_modulate,
};
use crate::placement::{Placement, Target};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

/// Computes a layer for `[height, width, channels]` or `[tokens, channels]`.
type Layer = fn(&Scope<'_>, &Tensor) -> Result<Tensor>;

/// The names of layers, the shapes of their inputs, and the layers.
const LAYERS: [(&str, &[usize], Layer); 9] = [
    ("linear layers", &[5, 36], |scope, x| Linear::load(scope, 36, 7)?.forward_activated(x, Activation::GeluTanh)),
    ("convolutions", &[9, 7, 12], |scope, x| Conv2d::load(scope, 12, 10, 3)?.forward(x)),
    ("normalized convolutions", &[9, 7, 12], |scope, x| {
        Conv2d::load(scope, 12, 10, 3)?.forward_normalized(&GroupNorm::load(scope, 4, 12, 1e-6)?, x)
    }),
    ("group norms", &[9, 7, 12], |scope, x| GroupNorm::load(scope, 4, 12, 1e-6)?.forward(x)),
    ("layer norms", &[5, 36], |scope, x| LayerNorm::load(scope, 36, 1e-5)?.forward(x)),
    ("RMS norms", &[5, 36], |scope, x| RmsNorm::load(scope, 36, 1e-6)?.forward(x)),
    ("modulated norms", &[5, 36], |_, x| {
        let (shift, scale) = (x.rows(0..1)?.reshape(&[36])?, x.rows(1..2)?.reshape(&[36])?);
        gated_residual(norm_modulate(x, &shift, &scale, 1e-6)?, x, &scale)
    }),
    ("masked attention", &[35, 24], |_, x| attention(x, x, x, 3, 0.3, Mask::Causal)),
    ("attention of one head", &[35, 256], |_, x| {
        activate(attention(x, x, x, 1, 0.05, Mask::None)?.permute([1, 0])?, Activation::Silu)
    }),
];

/// Returns the name of a layer that a GPU computes wrongly in f32.
pub(super) fn first_wrong(gpu: &Gpu) -> Result<Option<&'static str>> {
    for (name, shape, layer) in LAYERS {
        if !is_right(gpu, Format::F32, shape, layer)? {
            return Ok(Some(name));
        }
    }
    // Each format has its own conversion. The whole blocks of 256 values are those of the largest ones.
    let linear: Layer = |scope, x| Linear::load(scope, 256, 7)?.forward(x);
    for format in [Format::F16, Format::Bf16, Format::F8E4m3, Format::Q8_0, Format::Q4K, Format::Q5K, Format::Q6K] {
        if !is_right(gpu, format, &[5, 256], linear)? {
            return Ok(Some(format.name()));
        }
    }
    Ok(None)
}

fn is_right(gpu: &Gpu, format: Format, shape: &[usize], layer: Layer) -> Result<bool> {
    let x = Tensor::new(Generator::new(6).normal(shape.iter().product()), shape)?;
    let on = |target| {
        let placement = Placement::default();
        placement.set(target);
        Weights::random_in(format).on(&placement)
    };
    let expected = layer(&on(Target::Cpu).root(), &x)?;
    let on_gpu = Tensor::on_gpu(x.view(gpu)?, shape)?;
    let actual = layer(&on(Target::Gpu(gpu.with_full_precision())).root(), &on_gpu)?.on_cpu()?;
    // Drivers may compute functions such as `tanh` with few digits, and wrong kernels differ by more.
    let largest = expected.values().iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let mut pairs = actual.values().iter().zip(expected.values());
    Ok(actual.shape() == expected.shape() && pairs.all(|(a, b)| (a - b).abs() <= 1e-3 * largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::tests::gpu;
    use crate::layers::add;

    #[test]
    fn a_layer_that_the_gpu_computes_wrongly_is_found() {
        assert_eq!(first_wrong(gpu()).unwrap(), None);
        let wrong: Layer = |_, x| if x.gpu().is_some() { add(x.clone(), x) } else { Ok(x.clone()) };
        assert!(!is_right(gpu(), Format::F32, &[5, 36], wrong).unwrap());
    }
}
