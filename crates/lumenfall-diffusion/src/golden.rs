//! Compares every component with the golden values that `tools/golden.py` computed with diffusers for a tiny random model.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::config::VaeConfig;
use crate::checkpoint::{Checkpoint, Part};
use crate::device::Device;
use crate::image::RgbImage;
use crate::models::{Conditioning, Mmdit, Omitted, Vae};
use crate::parameters::{Callbacks, LoadOptions, Parameters};
use crate::pipeline::Pipeline;
use crate::placement::{Placement, Target};
use crate::sampling::{Generator, Guidance, Sampler, ScheduleOptions, Scheduler};
use crate::tensor::Tensor;
use crate::text::{Reading, TextEncoders, Texts, WithoutT5};
use crate::weights::{ModelFiles, Weights};

mod first_block_cache;
#[cfg(feature = "gpu")]
mod on_a_gpu;
mod photographs;
mod prompts;
mod tiny_decoder;

const COMPONENT_TOLERANCE: f32 = 1e-4;
const LATENT_TOLERANCE: f32 = 1e-3;
/// How much larger the tolerances are where matrix products have factors in f16.
#[cfg(feature = "gpu")]
const LENIENCY_OF_F16: f32 = 100.0;
const T5_TOKENS: usize = 32;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files() -> ModelFiles {
    ModelFiles::Folder(folder().join("model"))
}

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open(name: &str) -> Self {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        Self(tensors.iter().map(|(name, view)| (name.to_owned(), to_f32(&view))).collect())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}")).clone()
    }

    /// Returns one entry of the batch dimension.
    fn entry(&self, name: &str, index: usize) -> Tensor {
        let all = self.get(name);
        all.rows(index..index + 1).unwrap().reshape(&all.shape()[1..]).unwrap()
    }

    fn first(&self, name: &str) -> Tensor {
        self.entry(name, 0)
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.first(name).values().iter().map(|id| *id as u32).collect()
    }
}

fn to_f32(view: &safetensors::tensor::TensorView<'_>) -> Tensor {
    let bytes = view.data();
    let values = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        Dtype::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        other => panic!("golden values have the type {other:?}"),
    };
    Tensor::new(values, view.shape()).unwrap()
}

/// Returns the prompts and parameters of the golden values.
fn parameters() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder().join("golden.json")).unwrap()).unwrap()
}

#[track_caller]
fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.shape(), expected.shape());
    let actual = actual.on_cpu().unwrap();
    let pairs = actual.values().iter().zip(expected.values());
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference <= tolerance, "differs by {difference}, more than {tolerance}");
}

/// Returns the factor of the tolerances on a device.
fn leniency(placement: &Placement) -> f32 {
    match placement.target() {
        Target::Cpu => 1.0,
        #[cfg(feature = "gpu")]
        Target::Gpu(gpu) => gpu.matrices().map_or(1.0, |_| LENIENCY_OF_F16),
    }
}

fn never_cancelled() -> crate::error::Result<()> {
    Ok(())
}

/// Converts `[channels, height, width]` to `[height, width, channels]`.
fn channels_last(image: &Tensor) -> Tensor {
    image.permute([1, 2, 0]).unwrap()
}

fn row(vector: &Tensor) -> Tensor {
    vector.reshape(&[1, vector.len()]).unwrap()
}

fn text_encoders(files: &ModelFiles, placement: &Placement) -> TextEncoders {
    open_text_encoders(files, WithoutT5::Zeros, placement)
}

/// Encodes prompts without options.
fn encode(
    encoders: &TextEncoders,
    prompts: &[&str],
    t5_tokens: usize,
    check_cancelled: &dyn Fn() -> crate::error::Result<()>,
) -> crate::error::Result<Vec<Conditioning>> {
    let prompts: Vec<_> = prompts.iter().map(|prompt| Texts::all(prompt)).collect();
    let reading = Reading { t5_tokens: Some(t5_tokens), ..Reading::default() };
    encoders.encode(&prompts, &reading, &mut Vec::new(), check_cancelled)
}

fn open_text_encoders(files: &ModelFiles, without_t5: WithoutT5, placement: &Placement) -> TextEncoders {
    let Checkpoint { clip_l, clip_g, t5, .. } = Checkpoint::open(files).unwrap().on(placement, placement);
    TextEncoders::open(clip_l, clip_g, t5, 64, without_t5).unwrap()
}

/// Returns a copy of the golden model without the T5 encoder.
fn files_without_t5() -> (tempfile::TempDir, ModelFiles) {
    let copy = tempfile::tempdir().unwrap();
    for part in ["transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for file in std::fs::read_dir(folder().join("model").join(part)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
        }
    }
    let files = ModelFiles::Folder(copy.path().to_path_buf());
    (copy, files)
}

#[test]
fn noise_equals_that_of_torch() {
    let golden = Golden::open("rng");
    for (name, expected) in &golden.0 {
        let parts: Vec<&str> = name.split('.').collect();
        let actual = match parts.as_slice() {
            [seed, size] => Generator::new(seed.parse().unwrap()).normal(size.parse().unwrap()),
            ["then", first, second, which] => {
                let mut generator = Generator::new(7);
                let first = generator.normal(first.parse().unwrap());
                if *which == "first" { first } else { generator.normal(second.parse().unwrap()) }
            }
            _ => panic!("unknown golden tensor {name}"),
        };
        assert_close(&Tensor::new(actual, expected.shape()).unwrap(), expected, 2e-6);
    }
}

#[test]
fn sigmas_equal_those_of_diffusers() {
    let golden = Golden::open("scheduler");
    let config = Checkpoint::open(&files()).unwrap().scheduler;
    for count in [1, 2, 4, 20, 28, 40] {
        let scheduler = Scheduler::with_options(&config, &ScheduleOptions::default(), Sampler::Euler, Some(count), 0);
        let steps = scheduler.unwrap().steps();
        let sigmas: Vec<f32> = golden.get(&format!("{count}.sigmas")).into_values();
        let timesteps: Vec<f32> = golden.get(&format!("{count}.timesteps")).into_values();
        assert_eq!(steps.len(), timesteps.len());
        for (i, step) in steps.iter().enumerate() {
            assert!((step.sigma - sigmas[i]).abs() <= 1e-6, "{count} steps, sigma {i}");
            assert!((step.next_sigma - sigmas[i + 1]).abs() <= 1e-6, "{count} steps, sigma {}", i + 1);
            assert!((step.timestep - timesteps[i]).abs() <= 1e-3, "{count} steps, timestep {i}");
        }
    }
}

#[test]
fn encoded_prompts_equal_those_of_transformers() {
    assert_encoded_prompts(&Placement::default());
}

fn assert_encoded_prompts(placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    let golden = Golden::open("text");
    let parameters = parameters();
    let encoders = text_encoders(&files(), placement);
    for (i, prompt) in parameters["text"]["prompts"].as_array().unwrap().iter().enumerate() {
        let prompt = prompt.as_str().unwrap();
        for (name, (tokenizer, clip)) in [("clip_l", &encoders.clip_l), ("clip_g", &encoders.clip_g)] {
            let ids = tokenizer.get().unwrap().ids(prompt, 77);
            assert_eq!(ids, golden.ids(&format!("{i}.{name}.ids")), "{name} of {prompt:?}");
            let output = clip.forward(&[&ids], &never_cancelled).unwrap().remove(0);
            assert_close(&output.features, &golden.first(&format!("{i}.{name}.penultimate")), tolerance);
            assert_close(&output.pooled, &golden.get(&format!("{i}.{name}.pooled")), tolerance);
        }
        assert_t5_output(&encoders, prompt, T5_TOKENS, &golden, &format!("{i}.t5"));
    }
    assert_t5_output(&encoders, parameters["text"]["long"].as_str().unwrap(), 256, &golden, "long.t5");
}

fn assert_t5_output(encoders: &TextEncoders, prompt: &str, length: usize, golden: &Golden, name: &str) {
    let (tokenizer, t5) = encoders.t5.as_ref().unwrap();
    let ids = tokenizer.get().unwrap().ids(prompt, length);
    assert_eq!(ids, golden.ids(&format!("{name}.ids")), "T5 of {prompt:?}");
    let output = t5.forward(&[&ids], &never_cancelled).unwrap().remove(0);
    assert_close(&output, &golden.first(&format!("{name}.output")), COMPONENT_TOLERANCE);
}

#[test]
fn denoiser_output_equals_that_of_diffusers() {
    assert_denoiser_output(&Placement::default());
}

fn assert_denoiser_output(placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    let golden = Golden::open("denoiser");
    let denoiser = Mmdit::open(Checkpoint::open(&files()).unwrap().on(placement, placement).denoiser).unwrap();
    for size in ["square", "wide"] {
        let timestep = golden.get(&format!("{size}.timestep")).values()[0];
        for entry in 0..2 {
            let input = |name: &str| golden.entry(&format!("{size}.{name}"), entry);
            let conditioning = Conditioning { context: input("context"), pooled: row(&input("pooled")) };
            let context = denoiser.embed_context(&conditioning).unwrap();
            // The first condition must not have an effect.
            let conditions = [(timestep + 100.0, &conditioning.pooled), (timestep, &conditioning.pooled)];
            let modulations = denoiser.modulations(&conditions, &never_cancelled).unwrap();
            let output =
                denoiser.forward(&input("latents"), &context, &modulations, 1, Omitted::default(), &never_cancelled);
            assert_close(&output.unwrap(), &input("output"), tolerance);
            if entry > 0 {
                continue;
            }
            let modulations = denoiser.modulations(&conditions[1..], &never_cancelled).unwrap();
            let blocks = denoiser.trace(&input("latents"), &context, &modulations).unwrap();
            let (image, _) = &blocks[0];
            assert_close(image, &golden.first(&format!("{size}.patches")), tolerance);
            for (i, (image, text)) in blocks[1..].iter().enumerate() {
                assert_close(image, &golden.first(&format!("{size}.block{i}.hidden")), tolerance);
                if i + 2 < blocks.len() {
                    assert_close(text, &golden.first(&format!("{size}.block{i}.context")), tolerance);
                }
            }
        }
    }
}

#[test]
fn autoencoder_output_equals_that_of_diffusers() {
    assert_autoencoder_output(&Placement::default());
}

fn assert_autoencoder_output(placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    let golden = Golden::open("vae");
    let vae = Vae::open(Checkpoint::open(&files()).unwrap().on(placement, placement).vae).unwrap();
    for size in ["square", "wide"] {
        let value = |name: &str| golden.first(&format!("{size}.{name}"));
        // The golden latents are not normalized.
        let decoded = vae.decode(&vae.normalize(value("latents")), &never_cancelled).unwrap();
        assert_close(&decoded, &channels_last(&value("decoded")), tolerance);
        let posterior = vae.encode(&channels_last(&value("picture")), &never_cancelled).unwrap();
        assert_close(&posterior.mean, &value("mean"), tolerance);
        assert_close(&posterior.log_variance, &value("logvar"), tolerance);
        let noise = Generator::new(13).normal(posterior.mean.len());
        let noise = Tensor::new(noise, posterior.mean.shape()).unwrap();
        assert_close(&posterior.sample(&noise).unwrap(), &value("sample"), tolerance);
    }
}

/// Asserts that the root mean square of the differences is at most `tolerance` of that of the values.
#[track_caller]
fn assert_close_on_average(actual: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(actual.shape(), expected.shape());
    let size = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let difference = size(&mut actual.values().iter().zip(expected.values()).map(|(a, b)| a - b));
    let largest = tolerance * size(&mut expected.values().iter().copied());
    assert!(difference <= largest, "differs by {difference}, more than {largest}");
}

#[test]
fn output_of_an_autoencoder_with_many_channels_equals_that_of_diffusers() {
    let golden = Golden::open("vae_wide");
    // The golden model has too few channels for Winograd's algorithm.
    let config = VaeConfig {
        in_channels: 3,
        out_channels: 3,
        latent_channels: 16,
        block_out_channels: vec![32, 64],
        layers_per_block: 2,
        norm_num_groups: 8,
        scaling_factor: 1.0,
        shift_factor: 0.0,
        use_quant_conv: false,
        use_post_quant_conv: false,
    };
    let vae = Vae::open(Part { weights: Weights::random(), config }).unwrap();
    let decoded = vae.decode(&golden.first("latents"), &never_cancelled).unwrap();
    assert_close_on_average(&decoded, &channels_last(&golden.first("decoded")), 2e-6);
    let posterior = vae.encode(&channels_last(&golden.first("image")), &never_cancelled).unwrap();
    assert_close_on_average(&posterior.mean, &golden.first("mean"), 2e-6);
}

/// Runs the pipeline with the parameters of a golden image and compares the latents and the image. The tolerance of the
/// latents is multiplied by `leniency`.
fn assert_same_image(
    pipeline: &Pipeline,
    golden: &Golden,
    [scenario, name]: [&str; 2],
    source: Option<&RgbImage>,
    leniency: f32,
) {
    let run = &parameters()[scenario][name];
    let number = |key: &str| run[key].as_f64().unwrap();
    let guidance = number("guidance") as f32;
    let mut request = Parameters::new(run["prompt"].as_str().unwrap());
    // Without guidance, diffusers ignores the negative prompt. Our pipeline returns an error.
    request.negative_prompt = (guidance > 1.0).then(|| run["negative"].as_str().unwrap().to_owned());
    request.width = Some(number("width") as u32);
    request.height = Some(number("height") as u32);
    request.steps = Some(number("steps") as u32);
    request.guidance = Guidance::new(guidance);
    request.seed = run["seed"].as_u64().unwrap();
    request.t5_tokens = Some(T5_TOKENS);
    let latents = std::sync::Mutex::new(Vec::new());
    let expected = golden.first(&format!("{name}.initial"));
    let record = |latent: &[f32]| latents.lock().unwrap().push(Tensor::new(latent.to_vec(), expected.shape()).unwrap());
    let callbacks = Callbacks::none().with_latents(&record);
    let output = match source {
        Some(source) => pipeline.edit(source, number("strength") as f32, &request, callbacks).unwrap(),
        None => pipeline.generate(&request, callbacks).unwrap(),
    };
    let latents = latents.into_inner().unwrap();
    assert_close(&latents[0], &expected, COMPONENT_TOLERANCE * leniency);
    for (i, latent) in latents[1..].iter().enumerate() {
        assert_close(latent, &golden.first(&format!("{name}.step{i}.latents")), LATENT_TOLERANCE * leniency);
    }
    assert_eq!(output.steps, [latents.len() as u32 - 1]);
    let expected = bytes(&golden.get(&format!("{name}.picture")));
    let actual = output.images[0].pixels();
    assert_eq!(actual.len(), expected.len());
    let worst = actual.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst <= 1, "{scenario} {name}: a pixel differs by {worst}");
    // A peak signal-to-noise ratio of at least 60 dB.
    let differing = actual.iter().zip(&expected).filter(|(a, b)| a != b).count();
    assert!(differing * 1_000_000 <= actual.len() * 255 * 255, "{scenario} {name}: {differing} values differ");
}

fn bytes(image: &Tensor) -> Vec<u8> {
    image.values().iter().map(|value| *value as u8).collect()
}

fn pipeline(files: &ModelFiles) -> Pipeline {
    Pipeline::open(files, &LoadOptions { device: Device::Cpu, ..LoadOptions::default() }).unwrap()
}

#[test]
fn tasks_of_a_rayon_pool_do_not_nest() {
    let pipeline = pipeline(&files());
    let running = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let parameters = Parameters { steps: Some(1), guidance: Guidance::new(1.0), ..Parameters::new("a star") };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        (0..24).into_par_iter().with_max_len(1).for_each(|_| {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            pipeline.generate(&parameters, Callbacks::none()).unwrap();
            running.fetch_sub(1, Ordering::SeqCst);
        });
    });
    assert!(most.load(Ordering::SeqCst) <= 2, "a thread runs several tasks at once: {most:?}");
}

#[test]
fn generated_images_equal_those_of_diffusers() {
    let golden = Golden::open("txt2img");
    let with_t5 = pipeline(&files());
    for name in ["square", "wide", "no_guidance"] {
        assert_same_image(&with_t5, &golden, ["txt2img", name], None, 1.0);
    }
    let (_folder, without_t5) = files_without_t5();
    assert_same_image(&pipeline(&without_t5), &golden, ["txt2img", "no_t5"], None, 1.0);
}

#[test]
fn edited_images_equal_those_of_diffusers() {
    assert_edited_images(&pipeline(&files()), 1.0);
}

fn assert_edited_images(pipeline: &Pipeline, leniency: f32) {
    let golden = Golden::open("img2img");
    for name in ["square", "wide"] {
        let input = golden.get(&format!("{name}.input"));
        let [height, width, _] = input.dims().unwrap();
        let source = RgbImage::new(width as u32, height as u32, bytes(&input)).unwrap();
        assert_same_image(pipeline, &golden, ["img2img", name], Some(&source), leniency);
    }
}

#[test]
fn eight_bit_weights_have_the_values_of_torch() {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("part")).unwrap();
    std::fs::copy(folder().join("formats.safetensors"), copy.path().join("part/model.safetensors")).unwrap();
    let weights = Weights::open(&ModelFiles::Folder(copy.path().into()), "part", "model").unwrap();
    for (name, count) in [("f8_e4m3", 254), ("f8_e5m2", 248)] {
        let expected = weights.root().tensor(&format!("{name}.values"), &[count]).unwrap();
        assert_close(&weights.root().tensor(name, &[count]).unwrap(), &expected, 0.0);
    }
}

#[test]
fn sixteen_bit_weights_are_converted_exactly() {
    for dtype in ["bf16", "f16"] {
        let copy = tempfile::tempdir().unwrap();
        let target = copy.path().join("text_encoder");
        std::fs::create_dir(&target).unwrap();
        let source = folder().join(format!("text_encoder.{dtype}.safetensors"));
        std::fs::copy(&source, target.join("model.safetensors")).unwrap();
        let weights = Weights::open(&ModelFiles::Folder(copy.path().into()), "text_encoder", "model").unwrap();
        for (name, expected) in Golden::open(&format!("text_encoder.{dtype}")).0 {
            assert_close(&weights.root().tensor(&name, expected.shape()).unwrap(), &expected, 0.0);
        }
    }
}
