//! The pipeline passes its parameters to samplers, schedules, guidance and noise as diffusers' pipeline does.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::{CudaCard, Guidance, GuidanceMethod, Noise, Sampler, Schedule, SkipLayers, SkipWindow};
use super::{Golden, assert_close};
use crate::error::Error;
use crate::image::RgbImage;
use crate::parameters::{Callbacks, LoadOptions, Parameters, Progress};
use crate::pipeline::Mask;
use crate::pipeline::Pipeline;
use crate::weights::ModelFiles;

const TOLERANCE: f32 = 1e-3;

fn pipeline() -> Pipeline {
    let files = ModelFiles::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model"));
    Pipeline::open(&files, &LoadOptions::default()).unwrap()
}

fn parameters() -> Parameters {
    let mut parameters = Parameters::new("a red circle");
    parameters.negative_prompt = Some("blue".into());
    (parameters.width, parameters.height) = (Some(48), Some(32));
    (parameters.steps, parameters.seed, parameters.t5_tokens) = (Some(8), 7, Some(32));
    parameters
}

/// Returns the latents before the first and after each step, for all images.
fn latents(pipeline: &Pipeline, parameters: &Parameters) -> Vec<Vec<f32>> {
    let latents = Mutex::new(Vec::new());
    let record = |latent: &[f32]| latents.lock().unwrap().push(latent.to_vec());
    pipeline.generate(parameters, Callbacks::none().with_latents(&record)).unwrap();
    latents.into_inner().unwrap()
}

#[test]
fn latents_equal_those_of_diffusers_from_a_prompt_and_a_seed() {
    let (golden, pipeline) = (Golden::open(), pipeline());
    let skip = SkipLayers::new(vec![1], 2.8, SkipWindow::Steps { start: 0.01, end: 0.5 });
    type Case<'a> = (&'a str, Sampler, &'a dyn Fn(&mut Parameters));
    let cases: [Case<'_>; 7] = [
        ("euler", Sampler::Euler, &|_| {}),
        ("heun", Sampler::Heun, &|_| {}),
        ("dpmpp_2m_flow", Sampler::Dpmpp2mFlow, &|_| {}),
        ("uni_pc", Sampler::UniPc, &|_| {}),
        ("lcm", Sampler::Lcm, &|p| (p.guidance.scale, p.negative_prompt) = (1.0, None)),
        ("skip_layers", Sampler::Euler, &|p| p.guidance.skip_layers = Some(skip.clone())),
        ("latents", Sampler::Euler, &|p| p.latents = Some(golden.get("prompt.own_latents").to_vec())),
    ];
    for (name, sampler, change) in cases {
        let mut parameters = parameters();
        parameters.sampler = Some(sampler);
        change(&mut parameters);
        let latents = latents(&pipeline, &parameters);
        assert_close(latents.last().unwrap(), golden.get(&format!("prompt.{name}")), TOLERANCE, name);
    }
}

/// Neither the noise of a step nor the momentum of guidance depends on the other images of a request.
#[test]
fn an_image_is_the_same_alone_and_with_others() {
    let pipeline = pipeline();
    let mut parameters = Parameters { steps: Some(3), ..parameters() };
    parameters.guidance.method = GuidanceMethod::Projected { eta: 0.3, norm_threshold: 2.5, momentum: Some(-0.5) };
    for (sampler, noise) in [
        (Sampler::EulerAncestral, Noise::TorchCpu),
        (Sampler::EulerAncestral, Noise::Portable),
        (Sampler::Lcm, Noise::TorchCuda(CudaCard::A100)),
    ] {
        let parameters = Parameters { sampler: Some(sampler), ..parameters.clone() };
        let one = |seed| latents(&pipeline, &Parameters { noise, seed, ..parameters.clone() });
        let two = latents(&pipeline, &Parameters { noise, count: 2, ..parameters.clone() });
        assert_eq!(two, [one(7), one(8)].concat());
    }
}

/// Returns how often the pipeline asks whether it is cancelled: before each of the 3 blocks of a forward pass, and elsewhere.
fn checks(scale: f32, sampler: Sampler, steps: u32) -> u32 {
    let checks = AtomicU32::new(0);
    let count = || checks.fetch_add(1, Ordering::Relaxed) == u32::MAX;
    let mut parameters = Parameters { negative_prompt: None, steps: Some(steps), ..parameters() };
    (parameters.guidance, parameters.sampler) = (Guidance::new(scale), Some(sampler));
    pipeline().generate(&parameters, Callbacks::new(&count, &|_| {})).unwrap();
    checks.into_inner()
}

#[test]
fn a_step_without_guidance_runs_the_model_once_and_needs_no_negative_prompt() {
    assert_eq!(checks(1.0, Sampler::Euler, 3) - checks(1.0, Sampler::Euler, 2), 3);
    assert_eq!(checks(4.5, Sampler::Euler, 3) - checks(4.5, Sampler::Euler, 2), 6);
}

/// The estimate of the remaining time counts them.
#[test]
fn all_steps_of_heun_but_the_last_run_the_model_twice() {
    let parameters = Parameters { steps: Some(3), sampler: Some(Sampler::Heun), ..parameters() };
    let request = pipeline().request(&parameters, (48, 32), None).unwrap();
    assert_eq!([0, 1, 2].map(|step| request.forwards(step)), [4, 4, 2]);
    assert_eq!(checks(4.5, Sampler::Heun, 3) - checks(4.5, Sampler::Euler, 3), 3 * (10 - 6));
}

#[test]
fn options_that_do_not_fit_are_errors_before_any_work() {
    let pipeline = pipeline();
    type Case<'a> = (&'a str, &'a str, fn(&mut Parameters));
    let cases: [Case<'_>; 7] = [
        ("latents", "has 5 values; 1 images of this size need 1 x 16 x 4 x 6 = 384", |p| {
            p.latents = Some(vec![0.0; 5])
        }),
        ("latents", "index 3", |p| {
            let mut values = vec![0.0; 384];
            values[3] = f32::NAN;
            p.latents = Some(values);
        }),
        ("sigmas", "decreasing", |p| {
            (p.steps, p.schedule.schedule) = (None, Some(Schedule::Sigmas(vec![0.5, 0.7])));
        }),
        ("sigmas", "NaN", |p| (p.steps, p.schedule.schedule) = (None, Some(Schedule::Sigmas(vec![f32::NAN])))),
        ("steps", "leave `steps` out", |p| p.schedule.schedule = Some(Schedule::Sigmas(vec![0.5]))),
        ("skip_layer_guidance", "the model has layers 0 to 2", |p| {
            p.guidance.skip_layers = Some(SkipLayers::diffusers())
        }),
        ("negative_prompt", "widen the range", |p| (p.guidance.start, p.guidance.end) = (0.5, 0.5)),
    ];
    for (parameter, text, change) in cases {
        let mut parameters = parameters();
        change(&mut parameters);
        let never = |_| panic!("work has begun");
        let error = pipeline.generate(&parameters, Callbacks::new(&|| false, &never)).unwrap_err();
        assert!(matches!(&error, Error::Parameter { parameter: name, .. } if *name == parameter), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// Outside of the mask, the latent of each step is the source's latent with the noise of that step.
#[test]
fn the_latent_outside_of_a_mask_follows_the_source() {
    let pipeline = pipeline();
    let pixels: Vec<u8> = (0..48 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let source = RgbImage::new(48, 32, pixels).unwrap();
    // The latent has 6 columns, of which the first 2 are drawn, and the third one by half.
    let alpha = |x: usize| if x < 16 { 0 } else { 255 - 128 * u8::from(x == 20) };
    let mask = Mask::new(48, 32, (0..48 * 32).map(|i| alpha(i % 48)).collect()).unwrap();
    for sampler in [Sampler::Euler, Sampler::Heun, Sampler::Dpmpp2m, Sampler::UniPc, Sampler::Lcm] {
        let noise: Vec<f32> = (0..384).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut parameters = Parameters { sampler: Some(sampler), latents: Some(noise.clone()), ..parameters() };
        (parameters.width, parameters.height) = (None, None);
        let latents = Mutex::new(Vec::new());
        let sigmas = Mutex::new(Vec::new());
        let record = |latent: &[f32]| latents.lock().unwrap().push(latent.to_vec());
        let progress = |progress| {
            if let Progress::Step { sigma, .. } = progress {
                sigmas.lock().unwrap().push(sigma);
            }
        };
        let callbacks = Callbacks::new(&|| false, &progress).with_latents(&record);
        let output = pipeline.inpaint(&source, &mask, 0.6, &parameters, callbacks).unwrap();
        let (latents, sigmas) = (latents.into_inner().unwrap(), sigmas.into_inner().unwrap());
        let clean = latents.last().unwrap();
        if sampler == Sampler::Euler {
            for (latent, sigma) in latents[1..].iter().zip(&sigmas) {
                for index in (0..384).filter(|index| index % 6 > 2) {
                    let expected = noise[index] * sigma + clean[index] * (1.0 - sigma);
                    assert!((latent[index] - expected).abs() < 1e-4, "{} {expected}", latent[index]);
                }
            }
        }
        let tensor = source.to_tensor().unwrap();
        let expected = pipeline.encoded_mean(&tensor);
        for index in (0..384).filter(|index| index % 6 > 2) {
            assert!((clean[index] - expected[index]).abs() < 1e-4, "{sampler:?}: {} {}", clean[index], expected[index]);
        }
        let kept = |(i, _): &(usize, &u8)| alpha(i / 3 % 48) == 255;
        let pixels = output.images[0].pixels().iter().enumerate();
        assert!(pixels.filter(kept).all(|(i, value)| *value == source.pixels()[i]), "{sampler:?}");
        assert_ne!(output.images[0], source);
    }
}
