//! The denoising of one image.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Instant;

use super::clock::Clock;
use super::guided::{Caches, GuidedDenoiser};
use super::preview::Previewer;
use super::request::Request;
use crate::error::Result;
use crate::parameters::{Callbacks, Preview, Progress};
use crate::sampling::{NoiseStream, sample};

/// What the steps of an image need.
pub(crate) struct Run<'a> {
    pub(crate) denoiser: &'a GuidedDenoiser<'a>,
    pub(crate) request: &'a Request,
    /// The part of the image to draw, if the rest is kept.
    pub(crate) area: Option<&'a Area>,
    /// What draws previews, if they are requested.
    pub(crate) previewer: Option<&'a Previewer<'a>>,
    /// The index of the image.
    pub(crate) image: u32,
    pub(crate) callbacks: Callbacks<'a>,
}

/// The result of the steps of an image.
pub(crate) struct Denoised {
    pub(crate) latent: Vec<f32>,
    /// The number of steps that were computed.
    pub(crate) steps: usize,
    /// The number of forward passes that left out blocks.
    pub(crate) skipped_forwards: usize,
}

/// The part of a latent that an edit with a mask draws.
pub(crate) struct Area {
    /// The normalized latent of the source.
    pub(crate) source: Vec<f32>,
    /// How much each cell of the latent is drawn, from 0 to 1.
    pub(crate) drawn: Vec<f32>,
}

impl Area {
    /// Replaces the velocity outside of the area by the one that leads to the source.
    fn restrict(&self, velocity: &mut [f32], latent: &[f32], sigma: f32) {
        let cells = self.drawn.len().max(1);
        let channels = velocity.chunks_exact_mut(cells).zip(latent.chunks_exact(cells));
        for ((velocity, latent), source) in channels.zip(self.source.chunks_exact(cells)) {
            for (((velocity, latent), source), drawn) in velocity.iter_mut().zip(latent).zip(source).zip(&self.drawn) {
                *velocity = drawn * *velocity + (1.0 - drawn) * (latent - source) / sigma;
            }
        }
    }
}

impl Run<'_> {
    /// Computes the steps.
    pub(crate) fn denoise(&self, latent: Vec<f32>, mut stream: NoiseStream, clock: &mut Clock) -> Result<Denoised> {
        let Self { request, callbacks, .. } = self;
        callbacks.latent(&latent);
        let mut guide = request.guidance.guide();
        // Borrowed by two closures, which do not run at the same time.
        let caches = RefCell::new(request.parameters.first_block_cache.map(Caches::new));
        let skipped_forwards = || caches.borrow().as_ref().map_or(0, Caches::skipped);
        let steps = request.steps.len();
        let (mut completed, mut skipped) = (0, 0);
        let latent = sample(
            request.sampler,
            &request.steps,
            latent,
            &mut |latent, point| {
                let caches = &mut caches.borrow_mut();
                let mut velocity = self.denoiser.velocity(&mut guide, caches, latent, &request.shape, point)?;
                if let Some(area) = self.area {
                    area.restrict(&mut velocity, latent, point.sigma);
                }
                Ok(velocity)
            },
            &mut || Ok(stream.normal(request.latent_len())),
            &mut |result| {
                callbacks.latent(result.latent);
                completed = result.completed;
                let skipped_before = std::mem::replace(&mut skipped, skipped_forwards());
                clock.advance(request.forwards(completed - 1), skipped - skipped_before);
                callbacks.progress(Progress::Step {
                    image: self.image,
                    step: completed as u32,
                    steps: steps as u32,
                    sigma: request.steps.get(completed).map_or(0.0, |step| step.sigma),
                    remaining: clock.remaining(),
                });
                if completed == steps {
                    return Ok(ControlFlow::Continue(()));
                }
                if let Some((previewer, on_preview)) = self.previewer.zip(callbacks.preview_after(completed)) {
                    let check_cancelled = || callbacks.check_cancelled();
                    let image = previewer.image(result.denoised, request.shape, &check_cancelled)?;
                    on_preview(Preview { index: self.image, step: completed as u32, image: &image });
                }
                let next = clock.time_of_computed(request.forwards(completed) + 1);
                let is_late = callbacks.stop_at.is_some_and(|stop_at| Instant::now() + next > stop_at);
                Ok(if is_late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        )?;
        Ok(Denoised { latent, steps: completed, skipped_forwards: skipped })
    }
}
