//! The denoiser with guidance, for one request.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::models::mmdit::CONDITIONS;
use crate::models::{Conditioning, FirstBlockCache, Mmdit, Modulations, Omitted};
use crate::parameters::Callbacks;
use crate::sampling::{Forward, Guide, Point, Step};
use crate::tensor::Tensor;

/// The denoiser for the prompts and steps of one request.
pub(crate) struct GuidedDenoiser<'a> {
    denoiser: &'a Mmdit,
    /// The prompt and, with guidance, the negative prompt.
    prompts: Vec<Prompt>,
    timesteps: Vec<f32>,
    /// The index of the first timestep, and the modulation from there on.
    window: Mutex<Option<(usize, Modulations)>>,
    callbacks: Callbacks<'a>,
}

/// The first-block caches of one image: one for each of the forward passes of a step, which change the tokens differently.
#[derive(Debug)]
pub(crate) struct Caches([FirstBlockCache; 3]);

impl Caches {
    pub(crate) fn new(threshold: f32) -> Self {
        Self(std::array::from_fn(|_| FirstBlockCache::new(threshold)))
    }

    /// Returns the number of forward passes that left out blocks.
    pub(crate) fn skipped(&self) -> usize {
        self.0.iter().map(FirstBlockCache::skipped).sum()
    }

    fn of(&mut self, forward: Forward<'_>) -> &mut FirstBlockCache {
        let Self([conditional, unconditional, skipping]) = self;
        match forward {
            Forward::Conditional => conditional,
            Forward::Unconditional => unconditional,
            Forward::Skipping(_) => skipping,
        }
    }
}

struct Prompt {
    /// `[tokens, denoiser width]`
    context: Tensor,
    /// `[1, pooled width]`
    pooled: Tensor,
}

impl<'a> GuidedDenoiser<'a> {
    /// Prepares the denoiser for the steps of a request. `prompts` has the negative prompt in second place, if a step needs it.
    pub(crate) fn new(
        denoiser: &'a Mmdit,
        prompts: &[Conditioning],
        steps: &[Step],
        callbacks: Callbacks<'a>,
    ) -> Result<Self> {
        let embed = |prompt: &Conditioning| {
            Ok(Prompt { context: denoiser.embed_context(prompt)?, pooled: prompt.pooled.clone() })
        };
        let prompts = prompts.iter().map(embed).collect::<Result<_>>()?;
        let timesteps = steps.iter().map(|step| step.timestep).collect();
        Ok(Self { denoiser, prompts, timesteps, window: Mutex::new(None), callbacks })
    }

    /// Predicts the velocity of a latent of the shape `[channels, height, width]`.
    pub(crate) fn velocity(
        &self,
        guide: &mut Guide<'_>,
        caches: &mut Option<Caches>,
        latent: &[f32],
        shape: &[usize; 3],
        point: Point,
    ) -> Result<Vec<f32>> {
        let latent = Tensor::new(latent.to_vec(), shape)?;
        guide.velocity(point.step, latent.len(), &mut |forward| {
            let cache = caches.as_mut().map(|caches| caches.of(forward));
            self.forward(&latent, point.step, forward, cache)
        })
    }

    fn forward(
        &self,
        latent: &Tensor,
        step: usize,
        forward: Forward<'_>,
        cache: Option<&mut FirstBlockCache>,
    ) -> Result<Vec<f32>> {
        let (index, skipped) = match forward {
            Forward::Conditional => (0, &[][..]),
            Forward::Unconditional => (1, &[][..]),
            Forward::Skipping(layers) => (0, layers),
        };
        let prompt = self.prompts.get(index);
        let prompt = prompt.ok_or_else(|| Error::Compute("a step needs a prompt that is not encoded".into()))?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = (CONDITIONS / self.prompts.len().max(1)).max(1);
        // Modulations of other steps are freed before the new ones are computed.
        let known = window.take().filter(|(first, _)| (*first..first + steps).contains(&step));
        let (first, modulations) = match known {
            Some(known) => known,
            None => (step, self.modulations(step, steps)?),
        };
        let (first, modulations) = window.insert((first, modulations));
        let condition = (step - *first) * self.prompts.len() + index;
        let check_cancelled = || self.callbacks.check_cancelled();
        let omitted = Omitted { skipped, cache };
        let velocity =
            self.denoiser.forward(latent, &prompt.context, modulations, condition, omitted, &check_cancelled)?;
        Ok(velocity.on_cpu()?.into_values())
    }

    /// Computes the modulation of up to `steps` timesteps for each prompt.
    fn modulations(&self, first: usize, steps: usize) -> Result<Modulations> {
        let timesteps = self.timesteps.iter().skip(first).take(steps);
        let conditions: Vec<_> =
            timesteps.flat_map(|timestep| self.prompts.iter().map(move |prompt| (*timestep, &prompt.pooled))).collect();
        self.denoiser.modulations(&conditions, &|| self.callbacks.check_cancelled())
    }
}
