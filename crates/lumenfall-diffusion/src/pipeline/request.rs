//! A request whose parameters have been checked, with its steps.

use crate::checkpoint::scheduler::SchedulerConfig;
use crate::error::{Error, Result};
use crate::parameters::Parameters;
use crate::sampling::{GuidancePlan, NoiseStream, Sampler, Scheduler, Step};
use crate::text::MAX_T5_TOKENS;

/// The facts of a model that a request depends on.
pub(crate) struct ModelFacts<'a> {
    pub(crate) scheduler: &'a SchedulerConfig,
    /// The shape of the request's latent: `[channels, height, width]`.
    pub(crate) latent: [usize; 3],
    /// The width and height of a token in the latent.
    pub(crate) patch: usize,
    /// The number of transformer blocks.
    pub(crate) blocks: usize,
}

/// A request that can be computed.
pub(crate) struct Request {
    /// The parameters with the defaults of those that were left out.
    pub(crate) parameters: Parameters,
    pub(crate) sampler: Sampler,
    /// The steps to compute, without those that an edit skips.
    pub(crate) steps: Vec<Step>,
    pub(crate) guidance: GuidancePlan,
    /// `[channels, height, width]`
    pub(crate) shape: [usize; 3],
}

impl Request {
    /// Checks parameters whose size is set. `strength` is that of an edit.
    pub(crate) fn new(mut parameters: Parameters, strength: Option<f32>, model: &ModelFacts<'_>) -> Result<Self> {
        if parameters.count == 0 {
            return Err(Error::parameter("n", "is 0; request at least 1 image"));
        }
        let shape @ [_, height, width] = model.latent;
        let tokens = (height / model.patch) * (width / model.patch);
        let sampler = parameters.sampler.unwrap_or_else(|| model.scheduler.sampler());
        let options = &parameters.schedule;
        let mut scheduler = Scheduler::with_options(model.scheduler, options, sampler, parameters.steps, tokens)?;
        (parameters.sampler, parameters.steps) = (Some(sampler), Some(scheduler.steps().len() as u32));
        if let Some(strength) = strength {
            scheduler = scheduler.for_strength(strength)?;
        }
        let steps = scheduler.steps();
        let guidance = GuidancePlan::new(&parameters.guidance, &steps, scheduler.shift(), model.blocks)?;
        check_negative_prompt(&parameters, &guidance)?;
        if let Some(tokens) = parameters.t5_tokens.filter(|tokens| !(1..=MAX_T5_TOKENS).contains(tokens)) {
            let reason = format!("is {tokens}; use a number from 1 to {MAX_T5_TOKENS} (256 is the default)");
            return Err(Error::parameter("t5_tokens", reason));
        }
        check_first_block_cache(parameters.first_block_cache)?;
        check_latents(&parameters, shape)?;
        // The card of the noise may be invalid.
        parameters.noise.stream(0)?;
        Ok(Self { parameters, sampler, steps, guidance, shape })
    }

    /// Returns the number of values of a latent.
    pub(crate) fn latent_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of forward passes of a step.
    pub(crate) fn forwards(&self, step: usize) -> usize {
        let second = self.sampler == Sampler::Heun && step + 1 < self.steps.len();
        self.guidance.forwards(step) + if second { self.guidance.forwards(step + 1) } else { 0 }
    }

    /// Returns the sigma of the initial latent.
    pub(crate) fn initial_sigma(&self) -> f32 {
        self.steps.first().map_or(1.0, |step| step.sigma)
    }

    /// Starts the random numbers of an image.
    pub(crate) fn noise_stream(&self, image: u32) -> Result<NoiseStream> {
        self.parameters.noise.stream(self.parameters.seed.wrapping_add(u64::from(image)))
    }

    /// Returns the initial noise of an image: that of the caller, or the next of the image's stream.
    pub(crate) fn initial_noise(&self, image: u32, stream: &mut NoiseStream) -> Vec<f32> {
        let len = self.latent_len();
        let own = self.parameters.latents.as_deref().and_then(|latents| latents.chunks_exact(len).nth(image as usize));
        own.map_or_else(|| stream.normal(len), <[f32]>::to_vec)
    }
}

fn check_negative_prompt(parameters: &Parameters, guidance: &GuidancePlan) -> Result<()> {
    let negative = [
        ("negative_prompt", &parameters.negative_prompt),
        ("clip_g_negative_prompt", &parameters.text.clip_g_negative_prompt),
        ("t5_negative_prompt", &parameters.text.t5_negative_prompt),
    ];
    let set = negative.into_iter().find(|(_, prompt)| prompt.as_deref().is_some_and(|prompt| !prompt.is_empty()));
    let Some((name, _)) = set.filter(|_| !guidance.uses_negative_prompt()) else { return Ok(()) };
    let scale = parameters.guidance.scale;
    let reason = match scale <= 1.0 {
        true => format!("has no effect with a guidance of {scale}; set `guidance` to a value above 1"),
        false => "has no effect, because guidance is off in every step; widen the range of its steps".into(),
    };
    Err(Error::parameter(name, reason))
}

fn check_first_block_cache(threshold: Option<f32>) -> Result<()> {
    match threshold.filter(|threshold| !(*threshold > 0.0 && *threshold <= 1.0)) {
        Some(threshold) => {
            let reason = format!("is {threshold}; use a threshold above 0 and up to 1, such as 0.1, or leave it out");
            Err(Error::parameter("first_block_cache", reason))
        }
        None => Ok(()),
    }
}

fn check_latents(parameters: &Parameters, shape: [usize; 3]) -> Result<()> {
    let Some(latents) = &parameters.latents else { return Ok(()) };
    let expected = shape.iter().product::<usize>().saturating_mul(parameters.count as usize);
    if latents.len() != expected {
        let ([channels, height, width], count) = (shape, parameters.count);
        let reason = format!(
            "has {} values; {count} images of this size need {count} x {channels} x {height} x {width} = {expected}",
            latents.len()
        );
        return Err(Error::parameter("latents", reason));
    }
    match latents.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::parameter("latents", format!("has a value at index {index} that is not finite"))),
        None => Ok(()),
    }
}
