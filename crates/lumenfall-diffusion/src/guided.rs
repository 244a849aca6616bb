//! The denoiser with classifier-free guidance, for one request.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::models::mmdit::CONDITIONS;
use crate::models::{Conditioning, Mmdit, Modulations};
use crate::parameters::Callbacks;
use crate::tensor::Tensor;

/// The denoiser for the prompts and timesteps of one request.
pub(crate) struct GuidedDenoiser<'a> {
    denoiser: &'a Mmdit,
    /// The prompt and, with guidance, the negative prompt.
    prompts: Vec<Prompt>,
    scale: f32,
    timesteps: Vec<f32>,
    /// The index of the first timestep, and the modulation from there on.
    window: Mutex<Option<(usize, Modulations)>>,
    callbacks: Callbacks<'a>,
}

struct Prompt {
    /// `[tokens, denoiser width]`
    context: Tensor,
    /// `[1, pooled width]`
    pooled: Tensor,
}

impl<'a> GuidedDenoiser<'a> {
    /// Prepares the denoiser for timesteps (1000 * sigma).
    ///
    /// With two prompts, it computes `negative + scale * (positive − negative)`.
    pub(crate) fn new(
        denoiser: &'a Mmdit,
        prompts: &[Conditioning],
        scale: f32,
        timesteps: Vec<f32>,
        callbacks: Callbacks<'a>,
    ) -> Result<Self> {
        let embed = |prompt: &Conditioning| {
            Ok(Prompt { context: denoiser.embed_context(prompt)?, pooled: prompt.pooled.clone() })
        };
        let prompts = prompts.iter().map(embed).collect::<Result<_>>()?;
        Ok(Self { denoiser, prompts, scale, timesteps, window: Mutex::new(None), callbacks })
    }

    /// Predicts the velocity of a latent `[channels, height, width]` at the timestep with an index.
    pub(crate) fn velocity(&self, latent: &Tensor, timestep: usize) -> Result<Tensor> {
        let check_cancelled = || self.callbacks.check_cancelled();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = (CONDITIONS / self.prompts.len().max(1)).max(1);
        let (first, modulations) = match window.take() {
            Some((first, modulations)) if (first..first + steps).contains(&timestep) => (first, modulations),
            _ => (timestep, self.modulations(timestep, steps)?),
        };
        let (first, modulations) = window.insert((first, modulations));
        let predict = |index: usize, prompt: &Prompt| {
            let condition = (timestep - *first) * self.prompts.len() + index;
            self.denoiser.forward(latent, &prompt.context, modulations, condition, &[], &check_cancelled)
        };
        let mut predictions = self.prompts.iter().enumerate().map(|(index, prompt)| predict(index, prompt));
        match (predictions.next().transpose()?, predictions.next().transpose()?) {
            (Some(positive), Some(negative)) => {
                positive.zip_with(&negative, |positive, negative| negative + (positive - negative) * self.scale)
            }
            (positive, _) => positive.map_or_else(|| Ok(latent.clone()), Ok),
        }
    }

    /// Computes the modulation of up to `steps` timesteps for each prompt.
    fn modulations(&self, first: usize, steps: usize) -> Result<Modulations> {
        let timesteps = self.timesteps.iter().skip(first).take(steps);
        let conditions: Vec<_> =
            timesteps.flat_map(|timestep| self.prompts.iter().map(move |prompt| (*timestep, &prompt.pooled))).collect();
        self.denoiser.modulations(&conditions, &|| self.callbacks.check_cancelled())
    }
}
