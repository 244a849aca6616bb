//! Translates every kernel to the languages of Vulkan, Metal and DX12, without a driver.

use lumenfall_kernels::Values;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::device::Options;
use super::kernels::Body;
use super::tests::{ACTIVATIONS, FORMATS, encoded, normal, placement_on};
use super::{Gpu, GpuWeight, Matrices};
use crate::layers::*;
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Opens an adapter that computes nothing.
pub(crate) fn without_hardware(limits: wgpu::Limits) -> Gpu {
    let adapter = adapter(limits);
    Gpu::open(&adapter, Options::new(&adapter)).unwrap()
}

/// Opens the same, which computes images in bands of a size in bytes. As with the smallest limits, four bands can be bound at a time.
pub(crate) fn without_hardware_in_bands(band_bytes: usize) -> Gpu {
    let max_storage_buffer_binding_size = 4 * band_bytes as u64;
    let adapter = adapter(wgpu::Limits { max_storage_buffer_binding_size, ..wgpu::Limits::unlimited() });
    Gpu::open(&adapter, Options { band_bytes, ..Options::new(&adapter) }).unwrap()
}

fn adapter(limits: wgpu::Limits) -> wgpu::Adapter {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::NOOP;
    descriptor.backend_options.noop = wgpu::NoopBackendOptions {
        features: Some(wgpu::Features::IMMEDIATES),
        limits: Some(limits),
        ..wgpu::NoopBackendOptions::enabled()
    };
    let adapters = wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::all());
    pollster::block_on(adapters).remove(0)
}

/// Computes nothing, but with each kernel in every variant that a model can need.
fn use_all_kernels(gpu: &Gpu) {
    let weights = Weights::random().on(&placement_on(gpu));
    let scope = weights.root().at("layer");
    let on_gpu = |shape: &[usize]| {
        let x = normal(1, shape);
        Tensor::on_gpu(x.view(gpu).unwrap(), shape).unwrap()
    };
    let linear = |values: Values, inputs: usize, bias: Option<Tensor>| {
        Linear::new(values, inputs, 5, bias).moved_to(&scope).unwrap()
    };
    for format in FORMATS {
        let widths: &[_] = if format.block_values() == 1 { &[36, 33] } else { &[256] };
        for inputs in widths.iter().copied() {
            linear(encoded(format, inputs * 5), inputs, None).forward(&on_gpu(&[3, inputs])).unwrap();
        }
    }
    let activations = || [None].into_iter().chain(ACTIVATIONS.map(Some));
    for (activation, bias) in
        activations().flat_map(|activation| [(activation, None), (activation, Some(normal(2, &[5])))])
    {
        for values in [Values::F32(vec![1.0; 20]), Values::F32(vec![1.0; 20]).scaled(vec![1.0; 5], 5)] {
            let layer = linear(values, 4, bias.clone());
            match activation {
                None => layer.forward(&on_gpu(&[3, 4])).unwrap(),
                Some(activation) => layer.forward_activated(&on_gpu(&[3, 4]), activation).unwrap(),
            };
        }
    }
    let (x, row) = (on_gpu(&[6, 8]), on_gpu(&[8]));
    for activation in ACTIVATIONS {
        activate(x.clone(), activation).unwrap();
        super::kernels::shift_rows(gpu, &x, &row, Some(activation)).unwrap();
    }
    super::kernels::shift_rows(gpu, &x, &row, None).unwrap();
    super::kernels::scale_rows(gpu, &x, &row).unwrap();
    add(x.clone(), &x).unwrap();
    multiply(x.clone(), &x).unwrap();
    gated_residual(x.clone(), &x, &row).unwrap();
    x.permute([1, 0]).unwrap();
    for width in [64, 256] {
        norm_modulate(&on_gpu(&[2, width]), &on_gpu(&[width]), &on_gpu(&[width]), 1e-6).unwrap();
        RmsNorm::load(&scope.at("norm"), width, 1e-6).unwrap().forward(&on_gpu(&[2, width])).unwrap();
    }
    // Heads of 64 values are those of all models, and one head of 512 values that of the autoencoder.
    for (heads, width) in [(2, 64), (1, 512)] {
        let x = on_gpu(&[3, heads * width]);
        for mask in [Mask::None, Mask::Causal, Mask::Bias(&on_gpu(&[heads, 3, 3]))] {
            attention(&x, &x, &x, heads, 1.0, mask).unwrap();
        }
    }
    for channels in [8, 3] {
        let (conv, norm) = (scope.at("conv"), GroupNorm::load(&scope.at("norm"), 1, channels, 1e-6).unwrap());
        let image = on_gpu(&[6, 6, channels]);
        norm.forward(&image).unwrap();
        for kernel in [1, 3] {
            let layer = Conv2d::load(&conv, channels, 5, kernel).unwrap();
            layer.forward_normalized(&norm, &image).unwrap();
            layer.forward_upsampled(&image).unwrap();
        }
        Conv2d::load_downsample(&conv, channels).unwrap().forward(&image).unwrap();
    }
}

#[test]
fn every_kernel_translates_to_the_languages_of_vulkan_metal_and_dx12() {
    let gpu = without_hardware(wgpu::Limits::unlimited());
    use_all_kernels(&gpu);
    let sources = gpu.0.sources.lock().unwrap().clone();
    assert!(sources.len() > 70, "{} kernels", sources.len());
    for (name, source) in sources {
        translate(&source, true).unwrap_or_else(|error| panic!("the kernel `{name}`: {error}"));
    }
}

#[test]
fn kernels_with_cooperative_matrices_translate_to_the_languages_of_vulkan_and_metal() {
    let gpu = without_hardware(wgpu::Limits::unlimited());
    for matrices in [(8, 8, [2, 4]), (8, 32, [1, 2]), (16, 32, [2, 4]), (16, 32, [1, 2])] {
        let (side, subgroup, grid) = matrices;
        let matrices = Matrices { side, subgroup, grid };
        for format in FORMATS {
            let weight = GpuWeight::new(&gpu, &encoded(format, 256 * 20), 256).unwrap();
            let x = normal(1, &[20, 256]);
            // The adapter has no matrices and rejects the kernels, whose sources are recorded nevertheless.
            drop(super::kernels::linear_with(&gpu, Body::Matrices(matrices), &x, &weight, 20, None, None));
        }
        let x = normal(1, &[20, 64]);
        drop(super::kernels::attention_with_matrices(&gpu, matrices, [&x, &x, &x], 1, 1.0));
    }
    let sources = gpu.0.sources.lock().unwrap().clone();
    let sources: Vec<_> = sources.iter().filter(|(_, source)| source.contains("wgpu_cooperative_matrix")).collect();
    assert_eq!(sources.len(), 4 * (FORMATS.len() + 1));
    for (name, source) in sources {
        translate(source, false).unwrap_or_else(|error| panic!("the kernel `{name}`: {error}"));
    }
}

/// Translates a kernel to SPIR-V, the Metal Shading Language and, if `to_hlsl` is true, HLSL.
fn translate(source: &str, to_hlsl: bool) -> std::result::Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(source))?;
    let options = spv::Options { lang_version: (1, 3), ..spv::Options::default() };
    let words = spv::write_vec(&module, &info, &options, None).map_err(|error| format!("SPIR-V: {error}"))?;
    let options = msl::Options { lang_version: (2, 4), ..msl::Options::default() };
    let (text, translation) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;
    let entry_points = translation.entry_point_names.into_iter().collect::<std::result::Result<Vec<_>, _>>();
    let metal_names = entry_points.map_err(|error| format!("MSL: {error}"))?;
    if words.len() <= 100 || !metal_names.iter().all(|name| text.contains(name)) {
        return Err("a translation is incomplete".into());
    }
    if !to_hlsl {
        return Ok(());
    }
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        immediates_target: Some(hlsl::BindTarget::default()),
        ..hlsl::Options::default()
    };
    let (mut file, pipeline) = (String::new(), hlsl::PipelineOptions::default());
    let reflection = hlsl::Writer::new(&mut file, &options, &pipeline)
        .write(&module, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;
    let entry_points = reflection.entry_point_names.into_iter().collect::<std::result::Result<Vec<_>, _>>();
    let names = entry_points.map_err(|error| format!("HLSL: {error}"))?;
    if names == ["main"] { Ok(()) } else { Err("the translation to HLSL is incomplete".into()) }
}

#[test]
fn a_kernel_that_does_not_translate_is_noticed() {
    assert!(translate("@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }", true).is_err());
}

#[test]
fn a_driver_with_small_bindings_is_an_error_that_names_the_need() {
    let gpu = without_hardware(wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..wgpu::Limits::unlimited() });
    let x = normal(1, &[1 << 19]);
    let error = add(Tensor::on_gpu(x.view(&gpu).unwrap(), &[1 << 19]).unwrap(), &x).unwrap_err().to_string();
    assert!(error.contains("noop wgpu backend: a part of a buffer with 2097152 bytes is needed"), "{error}");
    assert!(error.contains("allows 1048576; ") && error.contains("use the CPU"), "{error}");
}

#[test]
fn a_driver_without_immediate_data_is_an_error_with_a_remedy() {
    let adapter = adapter(wgpu::Limits { max_immediate_size: 64, ..wgpu::Limits::unlimited() });
    let error = Gpu::open(&adapter, Options::new(&adapter)).unwrap_err().to_string();
    assert_eq!(error, "noop wgpu backend has no immediate data of 128 bytes; update its driver, or use the CPU");
}
