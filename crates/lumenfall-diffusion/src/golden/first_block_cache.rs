//! Compares images with a first-block cache with those of `tools/first_block_cache_golden.py`.

use std::sync::Mutex;

use super::*;
use crate::error::Error;
use crate::parameters::PipelineOutput;
use crate::sampling::{SkipLayers, SkipWindow};

fn request() -> Parameters {
    Parameters {
        negative_prompt: Some("blue".into()),
        width: Some(48),
        height: Some(32),
        steps: Some(12),
        seed: 7,
        t5_tokens: Some(T5_TOKENS),
        ..Parameters::new("a red circle")
    }
}

/// Returns the output of a request, and its latents before the first and after each step.
fn run(pipeline: &Pipeline, request: &Parameters) -> (PipelineOutput, Vec<Vec<f32>>) {
    let latents = Mutex::new(Vec::new());
    let record = |latent: &[f32]| latents.lock().unwrap().push(latent.to_vec());
    let output = pipeline.generate(request, Callbacks::none().with_latents(&record)).unwrap();
    (output, latents.into_inner().unwrap())
}

#[test]
fn latents_and_skipped_forward_passes_equal_those_of_diffusers() {
    let pipeline = pipeline(&files());
    let skip = SkipLayers::new(vec![1], 2.8, SkipWindow::Steps { start: 0.01, end: 0.8 });
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Parameters));
    let cases: [Case<'_>; 3] = [
        ("euler", &|_| {}),
        ("heun", &|request| request.sampler = Some(Sampler::Heun)),
        ("skip_layers", &|request| request.guidance.skip_layers = Some(skip.clone())),
    ];
    for (name, change) in cases {
        let mut request = request();
        change(&mut request);
        assert_same_latent(&pipeline, request, name);
    }
    let request = Parameters { guidance: Guidance::new(1.0), negative_prompt: None, ..request() };
    assert_same_latent(&pipeline, request, "no_guidance");
}

fn assert_same_latent(pipeline: &Pipeline, request: Parameters, name: &str) {
    let golden = Golden::open("first_block_cache");
    let first_block_cache = Some(golden.get(&format!("{name}.threshold")).values()[0]);
    let (output, latents) = run(pipeline, &Parameters { first_block_cache, ..request });
    assert_eq!(output.skipped_forwards[0] as f32, golden.get(&format!("{name}.skipped")).values()[0], "{name}");
    let expected = golden.first(name);
    let latent = Tensor::new(latents.last().unwrap().clone(), expected.shape()).unwrap();
    assert_close(&latent, &expected, LATENT_TOLERANCE);
}

#[test]
fn each_image_starts_with_an_empty_cache() {
    let pipeline = pipeline(&files());
    let request = Parameters { first_block_cache: Some(0.9), steps: Some(5), ..request() };
    let [first, second] = [7, 8].map(|seed| run(&pipeline, &Parameters { seed, ..request.clone() }));
    let (both, latents) = run(&pipeline, &Parameters { count: 2, ..request });
    assert_eq!(latents, [first.1, second.1].concat());
    assert_eq!(both.skipped_forwards, [first.0.skipped_forwards, second.0.skipped_forwards].concat());
    assert!(both.skipped_forwards.iter().all(|skipped| *skipped > 0), "{both:?}");
}

#[test]
fn a_skipped_forward_pass_computes_one_block() {
    let pipeline = pipeline(&files());
    // The pipeline checks whether it is cancelled before each of the three blocks, and elsewhere.
    let checks = |first_block_cache| {
        let checks = AtomicUsize::new(0);
        let count = || checks.fetch_add(1, Ordering::Relaxed) == usize::MAX;
        let request = Parameters { first_block_cache, ..request() };
        let output = pipeline.generate(&request, Callbacks::new(&count, &|_| {})).unwrap();
        (checks.into_inner(), output.skipped_forwards[0] as usize)
    };
    // The prompts are encoded once.
    checks(None);
    let ((complete, none), (shortened, skipped)) = (checks(None), checks(Some(0.9)));
    assert!(none == 0 && skipped > 0);
    assert_eq!(complete - shortened, 2 * skipped);
}

#[test]
fn thresholds_that_are_not_fractions_are_errors() {
    let pipeline = pipeline(&files());
    for threshold in [0.0, -0.1, 1.5, f32::NAN, f32::INFINITY] {
        let request = Parameters { first_block_cache: Some(threshold), ..request() };
        let error = pipeline.generate(&request, Callbacks::none()).unwrap_err();
        assert!(matches!(&error, Error::Parameter { parameter: "first_block_cache", .. }), "{error}");
        assert!(error.to_string().contains(&threshold.to_string()), "{error}");
    }
}
