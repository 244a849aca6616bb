//! Options that only the local backend has.

use std::collections::BTreeMap;
use std::sync::Arc;

use lumenfall_diffusion::{
    Decoder, Guidance, GuidanceMethod, LongPrompts, Noise, Parameters, PromptWeights, Sampler, Schedule, Shift,
    SkipLayers, SkipWindow,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};
use crate::setters::setters;
use crate::values::SkipLayerGuidance;

/// Options that only the [`Local`](super::Local) backend has: sampler, schedule, guidance, noise, prompts, LoRAs, caching, previews and
/// deadlines.
///
/// They are set for one request with the method `local` of a request builder or the field
/// [`Options::local`](crate::backend::Options::local), and for all requests with
/// [`LocalBuilder::defaults`](super::LocalBuilder::defaults). A backend of another kind rejects a request with such an option, and
/// names the option in the error. Values are checked when the request is sent.
///
/// ```
/// use lumenfall::local::{LocalOptions, Sampler, Schedule};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lumenfall::Error> {
/// let client = lumenfall::Client::demo()?;
/// let options = LocalOptions::default().with_sampler(Sampler::Dpmpp2m).with_schedule(Schedule::Karras);
/// let request = client.images().generate("a red circle on a white background").steps(8).local(options);
/// let images = request.inline().send().await?;
/// # assert_eq!(images.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LocalOptions {
    /// The sampler. Default: that of the model's `scheduler_config.json`, Euler for Stable Diffusion 3.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// The noise levels of the steps. Default: those of the sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The shift of the timesteps towards more noise. Default: 3, or the value of the model's `scheduler_config.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// The last sigma above 0, to which the schedule is stretched; see
    /// [`ScheduleOptions::shift_terminal`](lumenfall_diffusion::ScheduleOptions::shift_terminal).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift_terminal: Option<f64>,
    /// The formula of guidance. Default: [`GuidanceMethod::Plain`]. The scale is
    /// [`Sampling::guidance`](crate::Sampling::guidance).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_method: Option<GuidanceMethod>,
    /// The fraction of the steps, from 0 to 1, after which guidance starts. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_start: Option<f32>,
    /// The fraction of the steps, from 0 to 1, after which guidance ends. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_end: Option<f32>,
    /// `guidance_rescale` of diffusers, from 0 to 1. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_rescale: Option<f32>,
    /// Skip-layer guidance in a published form, such as [`SkipLayers::comfyui`]. It excludes
    /// [`Sampling::skip_layer_guidance`](crate::Sampling::skip_layer_guidance), which is the form for all backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_layers: Option<SkipLayers>,
    /// The random numbers that a seed stands for. Default: those of torch on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// The initial latents in place of those of the seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latents: Option<Latents>,
    /// The meaning of brackets in prompts, such as `(word:1.2)`. Default: [`PromptWeights::Off`], so they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_weights: Option<PromptWeights>,
    /// The treatment of prompts that are too long for the CLIP encoders. Default: [`LongPrompts::Truncate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_prompts: Option<LongPrompts>,
    /// The number of T5 tokens, from 1 to 512. Default: 256, or the tokenizer's maximum if that is smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t5_tokens: Option<u32>,
    /// The prompt for CLIP-G, `prompt_2` of diffusers. Default: the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_g_prompt: Option<String>,
    /// The prompt for T5, `prompt_3` of diffusers. Default: the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t5_prompt: Option<String>,
    /// The negative prompt for CLIP-G, `negative_prompt_2` of diffusers. Default: the negative prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_g_negative_prompt: Option<String>,
    /// The negative prompt for T5, `negative_prompt_3` of diffusers. Default: the negative prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t5_negative_prompt: Option<String>,
    /// The strengths of LoRAs, by the names that [`LocalBuilder::lora`](super::LocalBuilder::lora) gave them. The others have the strengths
    /// that were set there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loras: Option<BTreeMap<String, f32>>,
    /// The threshold of first-block caching, above 0 and up to 1, as in `FirstBlockCacheConfig` of diffusers: while the first transformer
    /// block has almost the same effect as before, the other blocks are left out. A larger threshold is faster, and the image differs
    /// more from that without caching. [`Metadata::skipped_forwards`](crate::backend::Metadata::skipped_forwards) is the number of
    /// forward passes that left out blocks. Default: no caching.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_block_cache: Option<f32>,
    /// The decoder of the images. [`Decoder::Tiny`] requires [`LocalBuilder::tiny_decoder`](super::LocalBuilder::tiny_decoder).
    /// Default: [`Decoder::Vae`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder: Option<Decoder>,
    /// Reports a preview, a [`Progress::PartialImage`](crate::backend::Progress::PartialImage), after every so many steps. It is a PNG
    /// file with a pixel for each 8x8 pixels of the image, or of its size with a tiny decoder. Default: no previews.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_every: Option<u32>,
    /// What happens when the timeout of the request passes. Default: [`AtDeadline::Fail`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_deadline: Option<AtDeadline>,
}

/// What happens when the timeout of a local request passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AtDeadline {
    /// The request fails with [`ErrorKind::Timeout`].
    #[default]
    Fail,
    /// The request ends with the best images so far, at about the deadline: it stops after the last step after which there is time
    /// to decode the image. At least one step is computed, so it can end later. [`Metadata::steps`](crate::backend::Metadata::steps)
    /// is the number of steps, and a warning names an incomplete or missing image. A request that waits for others until the
    /// deadline fails.
    BestImage,
}

/// Initial latents: for each image, `channels * height / 8 * width / 8` values in this order, like `latents` of diffusers. An edit
/// uses them as the noise that it adds to the source.
///
/// Its serde form is the base64 text of the values as f32 in little-endian order.
#[derive(Clone, PartialEq)]
pub struct Latents(Arc<[f32]>);

impl Latents {
    /// Returns latents with these values.
    pub fn new(values: impl Into<Arc<[f32]>>) -> Self {
        Self(values.into())
    }

    /// Returns the values.
    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

impl std::fmt::Debug for Latents {
    /// Shows the number of values and a hash of them, because defaults are a part of the identity of a backend.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // FNV-1a, whose result does not depend on the version of Rust.
        let bytes = self.0.iter().flat_map(|value| value.to_le_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        write!(f, "Latents({} values, {hash:016x})", self.0.len())
    }
}

impl Serialize for Latents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|value| value.to_le_bytes()).collect();
        serializer.serialize_str(&base64_simd::STANDARD.encode_to_string(bytes))
    }
}

impl<'de> Deserialize<'de> for Latents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let invalid = |_| serde::de::Error::custom("`latents` is not base64");
        let bytes = base64_simd::STANDARD.decode_to_vec(String::deserialize(deserializer)?).map_err(invalid)?;
        let (values, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("`latents` does not have 4 bytes for each value"));
        }
        Ok(Self(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }
}

impl LocalOptions {
    setters! {
        with_sampler: sampler = Sampler,
        with_schedule: schedule = Schedule,
        with_shift: shift = Shift,
        with_shift_terminal: shift_terminal = f64,
        with_guidance_method: guidance_method = GuidanceMethod,
        with_guidance_start: guidance_start = f32,
        with_guidance_end: guidance_end = f32,
        with_guidance_rescale: guidance_rescale = f32,
        with_skip_layers: skip_layers = SkipLayers,
        with_noise: noise = Noise,
        with_latents: latents = Latents,
        with_prompt_weights: prompt_weights = PromptWeights,
        with_long_prompts: long_prompts = LongPrompts,
        with_t5_tokens: t5_tokens = u32,
        with_clip_g_prompt: clip_g_prompt = impl Into<String>,
        with_t5_prompt: t5_prompt = impl Into<String>,
        with_clip_g_negative_prompt: clip_g_negative_prompt = impl Into<String>,
        with_t5_negative_prompt: t5_negative_prompt = impl Into<String>,
        with_loras: loras = BTreeMap<String, f32>,
        with_first_block_cache: first_block_cache = f32,
        with_decoder: decoder = Decoder,
        with_preview_every: preview_every = u32,
        with_at_deadline: at_deadline = AtDeadline,
    }

    /// Sets an option by its name and its serde form, such as `sampler` and `"dpmpp_2m"`. Null removes it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the name of the option, if there is no such option or it cannot have this value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        let parameter = format!("local.{name}");
        let invalid = |error: serde_json::Error| {
            let message = format!("`{parameter}` cannot have this value: {error}");
            Error::new(ErrorKind::InvalidRequest, message).with_parameter(&*parameter)
        };
        let mut form = self.form();
        form.insert(name.to_owned(), value.into());
        *self = Self::deserialize(Value::Object(form)).map_err(invalid)?;
        Ok(())
    }

    /// Returns the name of an option that is set, as in errors, if any is.
    pub(crate) fn first_set(&self) -> Option<String> {
        self.form().into_iter().next().map(|(name, _)| format!("local.{name}"))
    }

    /// Returns the options that are set, by their names.
    fn form(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(form)) => form,
            _ => Map::new(),
        }
    }

    /// Sets the options that are not set. The pattern has no `..`, so a new option does not compile until it is added.
    pub(crate) fn merge(&mut self, defaults: Self) {
        let Self {
            sampler,
            schedule,
            shift,
            shift_terminal,
            guidance_method,
            guidance_start,
            guidance_end,
            guidance_rescale,
            skip_layers,
            noise,
            latents,
            prompt_weights,
            long_prompts,
            t5_tokens,
            clip_g_prompt,
            t5_prompt,
            clip_g_negative_prompt,
            t5_negative_prompt,
            loras,
            first_block_cache,
            decoder,
            preview_every,
            at_deadline,
        } = defaults;
        self.sampler = self.sampler.or(sampler);
        self.schedule = self.schedule.take().or(schedule);
        self.shift = self.shift.take().or(shift);
        self.shift_terminal = self.shift_terminal.or(shift_terminal);
        self.guidance_method = self.guidance_method.take().or(guidance_method);
        self.guidance_start = self.guidance_start.or(guidance_start);
        self.guidance_end = self.guidance_end.or(guidance_end);
        self.guidance_rescale = self.guidance_rescale.or(guidance_rescale);
        self.skip_layers = self.skip_layers.take().or(skip_layers);
        self.noise = self.noise.or(noise);
        self.latents = self.latents.take().or(latents);
        self.prompt_weights = self.prompt_weights.or(prompt_weights);
        self.long_prompts = self.long_prompts.or(long_prompts);
        self.t5_tokens = self.t5_tokens.or(t5_tokens);
        self.clip_g_prompt = self.clip_g_prompt.take().or(clip_g_prompt);
        self.t5_prompt = self.t5_prompt.take().or(t5_prompt);
        self.clip_g_negative_prompt = self.clip_g_negative_prompt.take().or(clip_g_negative_prompt);
        self.t5_negative_prompt = self.t5_negative_prompt.take().or(t5_negative_prompt);
        self.loras = self.loras.take().or(loras);
        self.first_block_cache = self.first_block_cache.or(first_block_cache);
        self.decoder = self.decoder.or(decoder);
        self.preview_every = self.preview_every.or(preview_every);
        self.at_deadline = self.at_deadline.or(at_deadline);
    }

    /// Sets the parameters of the pipeline, with the guidance that all backends have.
    pub(super) fn apply(
        &self,
        parameters: &mut Parameters,
        scale: Option<f32>,
        skip: Option<&SkipLayerGuidance>,
    ) -> Result<(), Error> {
        let invalid = |name: &str, problem: &str| {
            Error::new(ErrorKind::InvalidRequest, format!("`{name}` {problem}")).with_parameter(name)
        };
        if skip.is_some() && self.skip_layers.is_some() {
            return Err(invalid(
                "skip_layer_guidance",
                "is set twice, also as `local.skip_layers`; remove one of them",
            ));
        }
        if self.preview_every == Some(0) {
            return Err(invalid(
                "local.preview_every",
                "is 0; use the number of steps between two previews, or leave it out",
            ));
        }
        parameters.sampler = self.sampler;
        parameters.schedule.schedule = self.schedule.clone();
        parameters.schedule.shift = self.shift.clone();
        parameters.schedule.shift_terminal = self.shift_terminal;
        let guidance = &mut parameters.guidance;
        *guidance = scale.map_or_else(Guidance::default, Guidance::new);
        guidance.method = self.guidance_method.clone().unwrap_or_default();
        guidance.start = self.guidance_start.unwrap_or(guidance.start);
        guidance.end = self.guidance_end.unwrap_or(guidance.end);
        guidance.rescale = self.guidance_rescale.unwrap_or(guidance.rescale);
        guidance.skip_layers = self.skip_layers.clone().or_else(|| skip.map(skip_layers));
        let text = &mut parameters.text;
        text.weights = self.prompt_weights.unwrap_or_default();
        text.long_prompts = self.long_prompts.unwrap_or_default();
        text.clip_g_prompt = self.clip_g_prompt.clone();
        text.t5_prompt = self.t5_prompt.clone();
        text.clip_g_negative_prompt = self.clip_g_negative_prompt.clone();
        text.t5_negative_prompt = self.t5_negative_prompt.clone();
        parameters.t5_tokens = self.t5_tokens.map(|tokens| tokens as usize);
        parameters.noise = self.noise.unwrap_or_default();
        parameters.loras = self.loras.clone().unwrap_or_default();
        parameters.first_block_cache = self.first_block_cache;
        parameters.decoder = self.decoder.unwrap_or_default();
        parameters.latents = self.latents.as_ref().map(|latents| latents.values().to_vec());
        Ok(())
    }

    /// Returns whether no option is set.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn skip_layers(skip: &SkipLayerGuidance) -> SkipLayers {
    let SkipLayerGuidance { layers, scale, start, stop } = skip;
    let layers = layers.iter().map(|layer| *layer as usize).collect();
    SkipLayers::new(layers, *scale, SkipWindow::Steps { start: *start, end: *stop })
}
