//! Compares the noise, the schedule, the text encoders, the denoiser and the autoencoder with those of torch and diffusers.

use super::*;
use crate::checkpoint::config::VaeConfig;
use crate::sampling::{ScheduleOptions, Scheduler};

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

pub(super) fn assert_encoded_prompts(placement: &Placement) {
    for model in Model::ALL {
        assert_encoded_prompts_of(model, placement);
    }
}

fn assert_encoded_prompts_of(model: Model, placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    // T5 does not scale its scores, so factors that are rounded to f16 change its attention more.
    let t5_tolerance = if leniency(placement) > 1.0 { 2.0 * tolerance } else { tolerance };
    let golden = model.golden("text");
    let parameters = &model.parameters()["text"];
    let t5_tokens = |name: &str| parameters[name].as_u64().unwrap() as usize;
    let prompts: Vec<_> = parameters["prompts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let encoders = text_encoders(&model.files(), placement);
    for (i, prompt) in prompts.iter().enumerate() {
        for (name, (tokenizer, clip)) in [("clip_l", &encoders.clip_l), ("clip_g", &encoders.clip_g)] {
            let ids = tokenizer.get().unwrap().ids(prompt, 77);
            assert_eq!(ids, golden.ids(&format!("{i}.{name}.ids")), "{name} of {prompt:?}");
            let output = clip.forward(&[&ids], &never_cancelled).unwrap().remove(0);
            assert_close(&output.features, &golden.first(&format!("{i}.{name}.penultimate")), tolerance);
            assert_close(&output.pooled, &golden.get(&format!("{i}.{name}.pooled")), tolerance);
        }
        assert_t5_output(&encoders, prompt, t5_tokens("t5_length"), &golden, &format!("{i}.t5"), t5_tolerance);
    }
    assert_t5_output(&encoders, prompts.last().unwrap(), t5_tokens("long_t5_length"), &golden, "long.t5", t5_tolerance);
}

fn assert_t5_output(encoders: &TextEncoders, prompt: &str, length: usize, golden: &Golden, name: &str, tolerance: f32) {
    let (tokenizer, t5) = encoders.t5.as_ref().unwrap();
    let ids = tokenizer.get().unwrap().ids(prompt, length);
    assert_eq!(ids, golden.ids(&format!("{name}.ids")), "T5 of {prompt:?}");
    let output = t5.forward(&[&ids], &never_cancelled).unwrap().remove(0);
    assert_close(&output, &golden.first(&format!("{name}.output")), tolerance);
}

#[test]
fn denoiser_output_equals_that_of_diffusers() {
    assert_denoiser_output(&Placement::default());
}

pub(super) fn assert_denoiser_output(placement: &Placement) {
    for model in Model::ALL {
        assert_denoiser_output_of(model, placement);
    }
}

fn assert_denoiser_output_of(model: Model, placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    let golden = model.golden("denoiser");
    let denoiser = Mmdit::open(Checkpoint::open(&model.files()).unwrap().on(placement, placement).denoiser).unwrap();
    for size in model.parameters()["denoiser"]["sizes"].as_object().unwrap().keys() {
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

pub(super) fn assert_autoencoder_output(placement: &Placement) {
    for model in Model::ALL {
        assert_autoencoder_output_of(model, placement);
    }
}

fn assert_autoencoder_output_of(model: Model, placement: &Placement) {
    let tolerance = COMPONENT_TOLERANCE * leniency(placement);
    let golden = model.golden("vae");
    let vae = Vae::open(Checkpoint::open(&model.files()).unwrap().on(placement, placement).vae).unwrap();
    for size in model.parameters()["vae"]["sizes"].as_object().unwrap().keys() {
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
