//! The combination of the three text encoders.

use candle_core::{Device, Tensor};

use super::clip::{Clip, ClipOutput};
use super::t5::T5;
use super::tokenizer::Tokenizer;
use crate::config;
use crate::error::{Error, Result};
use crate::ops::Ops;
use crate::weights::{ModelFiles, Read, Weights};

/// The default number of T5 tokens, as in diffusers.
const T5_TOKENS: usize = 256;

/// The replacement for T5's output if the model has no T5 encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutT5 {
    /// Zeros, as in diffusers.
    #[default]
    Zeros,
    /// No tokens, as in ComfyUI. This is faster and results in a slightly different image.
    Omit,
}

/// The encoded prompt.
#[derive(Clone, Debug)]
pub(crate) struct Conditioning {
    /// `[tokens, joint width]`: the tokens of the concatenated CLIP encoders, then the tokens of T5.
    pub(crate) context: Tensor,
    /// `[pooled width]`: the concatenated pooled outputs of both CLIP encoders.
    pub(crate) pooled: Tensor,
}

/// The tokenizers and text encoders of a model.
#[derive(Debug)]
pub(crate) struct TextEncoders {
    pub(crate) clip_l: (Tokenizer, Clip),
    pub(crate) clip_g: (Tokenizer, Clip),
    pub(crate) t5: Option<(Tokenizer, T5)>,
    without_t5: WithoutT5,
    joint_width: usize,
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
                    "`pooled_projection_dim` is {pooled_width}, but the text encoders output {pooled_l} + {pooled_g}; \
                     the files belong to different models: download them from one source"
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
                    "`joint_attention_dim` is {joint_width}, but the T5 encoder outputs {}; \
                     the files belong to different models: download them from one source",
                    t5.width()
                ),
            ));
        }
        Ok(Self { clip_l: (tokenizer_l, clip_l), clip_g: (tokenizer_g, clip_g), t5, without_t5, joint_width })
    }

    /// Encodes prompts. Adds a warning for each encoder that truncates a prompt. Calls `check_cancelled` before each T5
    /// block.
    pub(crate) fn encode(
        &self,
        prompts: &[&str],
        t5_tokens: Option<usize>,
        warnings: &mut Vec<String>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Conditioning>> {
        let mut encoded = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            check_cancelled()?;
            encoded.push(self.encode_clips(prompt, warnings)?);
        }
        let t5_tokens = t5_tokens.unwrap_or(T5_TOKENS);
        match (&self.t5, self.without_t5) {
            (Some((tokenizer, t5)), _) => {
                let length = t5_tokens.min(tokenizer.max_length());
                let tokens = prompts.iter().map(|prompt| tokenizer.encode(prompt, length));
                let tokens = tokens.collect::<Result<Vec<_>>>()?;
                for tokens in &tokens {
                    warn_if_truncated(warnings, "T5", length, tokens.truncated.as_deref());
                }
                let ids: Vec<_> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
                for (encoded, t5) in encoded.iter_mut().zip(t5.forward(&ids, check_cancelled)?) {
                    encoded.context = Tensor::cat(&[&encoded.context, &t5], 0)?;
                }
            }
            (None, WithoutT5::Zeros) => {
                for encoded in &mut encoded {
                    encoded.context = encoded.context.pad_with_zeros(0, 0, t5_tokens)?;
                }
            }
            (None, WithoutT5::Omit) => {}
        }
        Ok(encoded)
    }

    /// Encodes a prompt with both CLIP encoders only.
    fn encode_clips(&self, prompt: &str, warnings: &mut Vec<String>) -> Result<Conditioning> {
        let l = self.encode_clip(&self.clip_l, "CLIP-L", prompt, warnings)?;
        let g = self.encode_clip(&self.clip_g, "CLIP-G", prompt, warnings)?;
        let context = Tensor::cat(&[&l.features, &g.features], 1)?;
        let padding = self.joint_width.checked_sub(context.dim(1)?).ok_or_else(|| {
            Error::malformed(
                "transformer/config.json",
                "`joint_attention_dim` is smaller than the CLIP encoders' width; \
                 the files belong to different models: download them from one source",
            )
        })?;
        Ok(Conditioning {
            context: context.pad_with_zeros(1, 0, padding)?,
            pooled: Tensor::cat(&[&l.pooled, &g.pooled], 0)?,
        })
    }

    fn encode_clip(
        &self,
        (tokenizer, clip): &(Tokenizer, Clip),
        name: &str,
        prompt: &str,
        warnings: &mut Vec<String>,
    ) -> Result<ClipOutput> {
        let tokens = tokenizer.encode(prompt, tokenizer.max_length())?;
        warn_if_truncated(warnings, name, tokenizer.max_length(), tokens.truncated.as_deref());
        clip.forward(&tokens.ids)
    }
}

fn warn_if_truncated(warnings: &mut Vec<String>, encoder: &str, length: usize, truncated: Option<&str>) {
    if let Some(truncated) = truncated {
        warnings
            .push(format!("the prompt exceeds {encoder}'s {length} tokens, so this part was ignored: {truncated:?}"));
    }
}
