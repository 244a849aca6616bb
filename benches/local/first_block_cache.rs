//! Measures first-block caching: the time of images, and how far they are from those without it.

use std::error::Error;
use std::time::Instant;

use lumenfall_diffusion::{Callbacks, LoadOptions, ModelFiles, Parameters, Pipeline, RgbImage, demo_files};

const THRESHOLDS: [f32; 5] = [0.05, 0.08, 0.12, 0.2, 0.3];
const STEPS: u32 = 28;

/// A model in files draws one small image in fewer steps, because it is much slower.
const STEPS_OF_A_LARGE_MODEL: u32 = 8;
const SIDE_OF_A_LARGE_MODEL: u32 = 128;
const PROMPTS: [&str; 4] = [
    "a red circle on a white background",
    "a yellow star on a navy background",
    "a green cross above a pink heart on a lavender background",
    "a blue letter A on a cream background",
];

/// The images of a threshold.
struct Run {
    images: Vec<RgbImage>,
    skipped: u32,
    /// The time of an image.
    seconds: f64,
}

/// Prints a table for the demonstration model, or for the model at a path.
pub(crate) fn print(path: Option<&str>) -> Result<(), Box<dyn Error>> {
    let (files, prompts, steps, side) = match path {
        Some(path) => (ModelFiles::find(path)?, &PROMPTS[..1], STEPS_OF_A_LARGE_MODEL, Some(SIDE_OF_A_LARGE_MODEL)),
        None => (demo_files(), &PROMPTS[..], STEPS, None),
    };
    let pipeline = Pipeline::open(&files, &LoadOptions::default())?;
    let draw = |threshold, prompts| draw(&pipeline, threshold, prompts, steps, side);
    // The first image also reads the weights.
    draw(None, &PROMPTS[..1])?;
    let exact = draw(None, prompts)?;
    println!("| threshold | forward passes skipped | time | PSNR, mean | PSNR, least | greatest difference |");
    println!("|---|---|---|---|---|---|");
    println!("| none | 0 % | {:.2} s | | | |", exact.seconds);
    for threshold in THRESHOLDS {
        let run = draw(Some(threshold), prompts)?;
        let skipped = 100.0 * f64::from(run.skipped) / (2.0 * f64::from(steps) * prompts.len() as f64);
        let psnrs: Vec<f64> = exact.images.iter().zip(&run.images).map(|(a, b)| psnr(a, b)).collect();
        let mean = psnrs.iter().sum::<f64>() / psnrs.len() as f64;
        let least = psnrs.iter().copied().fold(f64::INFINITY, f64::min);
        let pairs = exact.images.iter().zip(&run.images).flat_map(|(a, b)| a.pixels().iter().zip(b.pixels()));
        let greatest = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        let (seconds, change) = (run.seconds, 100.0 * (run.seconds / exact.seconds - 1.0));
        println!(
            "| {threshold} | {skipped:.0} % | {seconds:.2} s ({change:+.0} %) | {mean:.1} dB | {least:.1} dB | {greatest} |"
        );
    }
    Ok(())
}

fn draw(
    pipeline: &Pipeline,
    threshold: Option<f32>,
    prompts: &[&str],
    steps: u32,
    side: Option<u32>,
) -> Result<Run, Box<dyn Error>> {
    let started = Instant::now();
    let (mut images, mut skipped) = (Vec::new(), 0);
    for (seed, prompt) in (0..).zip(prompts) {
        let mut parameters = Parameters::new(*prompt);
        (parameters.steps, parameters.seed, parameters.first_block_cache) = (Some(steps), seed, threshold);
        (parameters.width, parameters.height) = (side, side);
        let output = pipeline.generate(&parameters, Callbacks::none())?;
        skipped += output.skipped_forwards.iter().sum::<u32>();
        images.extend(output.images);
    }
    let seconds = started.elapsed().as_secs_f64() / images.len() as f64;
    Ok(Run { images, skipped, seconds })
}

/// Returns the peak signal-to-noise ratio in decibels.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares = a.pixels().iter().zip(b.pixels()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / a.pixels().len() as f64;
    10.0 * (255.0f64.powi(2) / mean).log10()
}
