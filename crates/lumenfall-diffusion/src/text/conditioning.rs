//! The three text encoders together.

use candle_core::{Device, Tensor};

use super::clip::{Clip, ClipOutput};
use super::t5::T5;
use super::tokenizer::Tokenizer;
use crate::config;
use crate::error::{Error, Result};
use crate::ops::Ops;
use crate::weights::{ModelFiles, Read, Weights};

/// How many T5 tokens diffusers takes by default.
const T5_TOKENS: usize = 256;

/// What stands in the place of T5's tokens where a model folder has no T5 encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutT5 {
    /// Rows of zeros, as diffusers does it.
    #[default]
    Zeros,
    /// Nothing, as ComfyUI does it: faster, and a slightly different picture.
    Omit,
}

/// What the denoiser is conditioned on.
#[derive(Clone, Debug)]
pub(crate) struct Conditioning {
    /// `[tokens, joint width]`: the CLIP encoders side by side, then T5.
    pub(crate) context: Tensor,
    /// `[pooled width]`: both CLIP encoders' whole-prompt vectors.
    pub(crate) pooled: Tensor,
}

/// The tokenizers and text encoders of a model.
#[derive(Debug)]
pub(crate) struct TextEncoders {
    clip_l: (Tokenizer, Clip),
    clip_g: (Tokenizer, Clip),
    t5: Option<(Tokenizer, T5)>,
    without_t5: WithoutT5,
    joint_width: usize,
    device: Device,
}

impl TextEncoders {
    pub(crate) fn load(
        files: &ModelFiles,
        joint_width: usize,
        pooled_width: usize,
        without_t5: WithoutT5,
        read: Read,
        device: &Device,
        ops: Ops,
    ) -> Result<Self> {
        let clip = |encoder: &str, tokenizer: &str| -> Result<(Tokenizer, Clip, usize)> {
            let config = config::clip(files, encoder)?;
            let tokenizer = Tokenizer::clip(files, tokenizer, config.max_position_embeddings)?;
            let pooled = config.projection_dim;
            Ok((tokenizer, Clip::load(Weights::open(files, encoder, "model", read, device)?, config, ops)?, pooled))
        };
        let (tokenizer_l, clip_l, pooled_l) = clip("text_encoder", "tokenizer")?;
        let (tokenizer_g, clip_g, pooled_g) = clip("text_encoder_2", "tokenizer_2")?;
        if pooled_l + pooled_g != pooled_width {
            return Err(Error::malformed(
                files.path("transformer/config.json"),
                format!(
                    "`pooled_projection_dim` is {pooled_width}, but the text encoders give {pooled_l} + {pooled_g}; \
                     the parts are of different models: download them from one"
                ),
            ));
        }
        let t5 = match files.exists("text_encoder_3/config.json") {
            true => {
                let tokenizer = Tokenizer::t5(files, "tokenizer_3")?;
                let weights = Weights::open(files, "text_encoder_3", "model", read, device)?;
                Some((tokenizer, T5::load(weights, config::t5(files)?, ops)?))
            }
            false => None,
        };
        if let Some((_, t5)) = &t5
            && t5.width() != joint_width
        {
            return Err(Error::malformed(
                files.path("transformer/config.json"),
                format!(
                    "`joint_attention_dim` is {joint_width}, but the T5 encoder gives {}; \
                     the parts are of different models: download them from one",
                    t5.width()
                ),
            ));
        }
        let device = device.clone();
        Ok(Self { clip_l: (tokenizer_l, clip_l), clip_g: (tokenizer_g, clip_g), t5, without_t5, joint_width, device })
    }

    /// Encodes a prompt. Whatever part of it does not fit an encoder is told in `warnings`. `check` runs now and then.
    pub(crate) fn encode(
        &self,
        prompt: &str,
        t5_tokens: Option<usize>,
        warnings: &mut Vec<String>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Conditioning> {
        let l = self.encode_clip(&self.clip_l, "CLIP-L", prompt, warnings)?;
        let g = self.encode_clip(&self.clip_g, "CLIP-G", prompt, warnings)?;
        check()?;
        let clip = Tensor::cat(&[&l.features, &g.features], 1)?;
        let missing = self.joint_width.checked_sub(clip.dim(1)?).ok_or_else(|| {
            Error::malformed(
                "transformer/config.json",
                "`joint_attention_dim` is smaller than the CLIP encoders' width; \
                 the parts are of different models: download them from one",
            )
        })?;
        let clip = clip.pad_with_zeros(1, 0, missing)?;
        let pooled = Tensor::cat(&[&l.pooled, &g.pooled], 0)?;
        let context = match (&self.t5, self.without_t5) {
            (Some((tokenizer, t5)), _) => {
                let length = t5_tokens.unwrap_or(T5_TOKENS).min(tokenizer.max_length());
                let tokens = tokenizer.encode(prompt, length)?;
                warn_of_cut(warnings, "T5", length, tokens.cut.as_deref());
                Tensor::cat(&[&clip, &t5.forward(&tokens.ids, check)?], 0)?
            }
            (None, WithoutT5::Zeros) => clip.pad_with_zeros(0, 0, t5_tokens.unwrap_or(T5_TOKENS))?,
            (None, WithoutT5::Omit) => clip,
        };
        Ok(Conditioning { context: context.to_device(&self.device)?, pooled })
    }

    fn encode_clip(
        &self,
        (tokenizer, clip): &(Tokenizer, Clip),
        name: &str,
        prompt: &str,
        warnings: &mut Vec<String>,
    ) -> Result<ClipOutput> {
        let tokens = tokenizer.encode(prompt, tokenizer.max_length())?;
        warn_of_cut(warnings, name, tokenizer.max_length(), tokens.cut.as_deref());
        clip.forward(&tokens.ids)
    }
}

#[cfg(test)]
impl TextEncoders {
    pub(crate) fn clip_l(&self) -> &(Tokenizer, Clip) {
        &self.clip_l
    }

    pub(crate) fn clip_g(&self) -> &(Tokenizer, Clip) {
        &self.clip_g
    }

    pub(crate) fn t5(&self) -> Option<&(Tokenizer, T5)> {
        self.t5.as_ref()
    }
}

fn warn_of_cut(warnings: &mut Vec<String>, encoder: &str, length: usize, cut: Option<&str>) {
    if let Some(cut) = cut {
        warnings
            .push(format!("the prompt is longer than the {length} tokens of {encoder}, which did not see: {cut:?}"));
    }
}
