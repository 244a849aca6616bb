//! The times of a request.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::parameters::{Callbacks, LoadOptions, Parameters, Progress};
use crate::pipeline::Pipeline;
use crate::placement::MemoryBudget;
use crate::weights::ModelFiles;

/// The times of the phases of a request.
#[derive(Clone, Debug)]
pub struct Times {
    /// The time to open the model.
    pub open: Duration,
    /// The time to encode the prompt and the negative prompt.
    pub text: Duration,
    /// The time of the last denoising step.
    pub step: Duration,
    /// The time to decode the image.
    pub decode: Duration,
    /// The time from the start to the first denoising step.
    pub before_steps: Duration,
    /// The time of everything.
    pub total: Duration,
}

/// Generates an image of `size`×`size` pixels with guidance in 2 steps.
///
/// # Errors
/// Returns the error of the model or of the request.
pub fn measure(path: &Path, size: u32, memory: MemoryBudget) -> Result<Times> {
    let start = Instant::now();
    let pipeline = Pipeline::open(&ModelFiles::find(path)?, &LoadOptions { memory, ..LoadOptions::default() })?;
    let open = start.elapsed();
    let (marks, total) = record(&pipeline, start, "a lighthouse at dusk, oil on canvas", size, 2)?;
    match marks.as_slice() {
        [encoding, before_steps, first, last] => Ok(Times {
            open,
            text: before_steps.saturating_sub(*encoding),
            step: last.saturating_sub(*first),
            decode: total.saturating_sub(*last),
            before_steps: *before_steps,
            total,
        }),
        other => Err(Error::Compute(format!("{} latents of a request with 2 steps", other.len().saturating_sub(1)))),
    }
}

/// Generates an image of `size`×`size` pixels with guidance. Returns the time since `start` of the start of the text encoders,
/// of each latent (before the first step and after each step), and of the end.
pub(super) fn record(
    pipeline: &Pipeline,
    start: Instant,
    prompt: &str,
    size: u32,
    steps: u32,
) -> Result<(Vec<Duration>, Duration)> {
    let parameters =
        Parameters { width: Some(size), height: Some(size), steps: Some(steps), ..Parameters::new(prompt) };
    let marks = Mutex::new(Vec::new());
    let mark = || marks.lock().unwrap_or_else(PoisonError::into_inner).push(start.elapsed());
    let on_progress = |progress| {
        if progress == Progress::EncodingPrompt {
            mark();
        }
    };
    let on_latent = |_: &[f32]| mark();
    pipeline.generate(&parameters, Callbacks::new(&|| false, &on_progress).with_latents(&on_latent))?;
    let total = start.elapsed();
    Ok((marks.into_inner().unwrap_or_else(PoisonError::into_inner), total))
}
