//! The combination of the three text encoders.

use super::recent::{EncodedPrompt, Key, RecentPrompts};
use super::tokenizer::Tokenizer;
use crate::checkpoint::Encoder;
use crate::checkpoint::config::{ClipConfig, T5Config};
use crate::error::{Error, Result};
use crate::models::{Clip, ClipOutput, Conditioning, T5};
use crate::pipeline::PartSummary;
use crate::placement::Lazy;
use crate::tensor::Tensor;
use crate::weights::layout::PartKind;

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

/// The tokenizers and text encoders of a model.
#[derive(Debug)]
pub(crate) struct TextEncoders {
    pub(crate) clip_l: (Lazy<Tokenizer>, Clip),
    pub(crate) clip_g: (Lazy<Tokenizer>, Clip),
    pub(crate) t5: Option<(Lazy<Tokenizer>, T5)>,
    without_t5: WithoutT5,
    joint_width: usize,
    recent: RecentPrompts,
}

impl TextEncoders {
    /// Checks the weights without reading them.
    pub(crate) fn open(
        clip_l: Encoder<ClipConfig>,
        clip_g: Encoder<ClipConfig>,
        t5: Option<Encoder<T5Config>>,
        joint_width: usize,
        without_t5: WithoutT5,
    ) -> Result<Self> {
        let clip = |(tokenizer, part): Encoder<ClipConfig>| Ok((tokenizer, Clip::open(part)?));
        Ok(Self {
            clip_l: clip(clip_l)?,
            clip_g: clip(clip_g)?,
            t5: t5.map(|(tokenizer, part)| Ok((tokenizer, T5::open(part)?))).transpose()?,
            without_t5,
            joint_width,
            recent: RecentPrompts::default(),
        })
    }

    /// Describes the encoders.
    pub(crate) fn summaries(&self) -> impl Iterator<Item = PartSummary> {
        let t5 = self.t5.as_ref().map(|(_, t5)| (PartKind::T5, t5.weights()));
        let clips = [(PartKind::ClipL, self.clip_l.1.weights()), (PartKind::ClipG, self.clip_g.1.weights())];
        clips.into_iter().chain(t5).map(|(part, weights)| PartSummary::new(part, weights))
    }

    /// Returns the memory for encoding prompts, in bytes.
    pub(crate) fn working_bytes(&self, t5_tokens: Option<usize>, prompts: usize) -> u64 {
        let clip = self.clip_l.1.working_bytes().max(self.clip_g.1.working_bytes());
        let tokens = t5_tokens.unwrap_or(T5_TOKENS);
        clip.max(self.t5.as_ref().map_or(0, |(_, t5)| t5.working_bytes(tokens, prompts)))
    }

    /// Returns the number of tokens of an encoded prompt.
    pub(crate) fn context_tokens(&self, t5_tokens: Option<usize>) -> usize {
        self.clip_l.1.max_length() + t5_tokens.unwrap_or(T5_TOKENS)
    }

    /// Encodes prompts. Calls `check_cancelled` before each block.
    ///
    /// `loras` identifies the changes of the encoders by LoRAs.
    pub(crate) fn encode(
        &self,
        prompts: &[&str],
        t5_tokens: Option<usize>,
        loras: &[u32],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>> {
        let t5_tokens = match &self.t5 {
            Some((tokenizer, _)) => t5_tokens.unwrap_or(T5_TOKENS).min(tokenizer.get()?.max_length()),
            None => t5_tokens.unwrap_or(T5_TOKENS),
        };
        let known: Vec<_> = prompts.iter().map(|prompt| self.recent.get(&Key::new(prompt, t5_tokens, loras))).collect();
        let new: Vec<_> =
            prompts.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(new, _)| *new).collect();
        let mut encoded = match new.is_empty() {
            true => Vec::new(),
            false => self.encode_new(&new, t5_tokens, check_cancelled)?,
        }
        .into_iter();
        for (prompt, encoded) in new.iter().zip(encoded.as_slice()) {
            self.recent.add(Key::new(prompt, t5_tokens, loras), encoded);
        }
        Ok(known.into_iter().filter_map(|known| known.or_else(|| encoded.next())).collect())
    }

    fn encode_new(
        &self,
        prompts: &[&str],
        t5_tokens: usize,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>> {
        let mut warnings = vec![Vec::new(); prompts.len()];
        let l = encode_clip(&self.clip_l, "CLIP-L", prompts, &mut warnings, check_cancelled)?;
        let g = encode_clip(&self.clip_g, "CLIP-G", prompts, &mut warnings, check_cancelled)?;
        let t5 = match (&self.t5, self.without_t5) {
            (Some((tokenizer, t5)), _) => {
                let ids = encode_ids(&*tokenizer.get()?, "T5", t5_tokens, prompts, &mut warnings)?;
                let ids: Vec<_> = ids.iter().map(Vec::as_slice).collect();
                let outputs = t5.forward(&ids, check_cancelled)?;
                outputs.iter().map(Tensor::on_cpu).collect::<Result<_>>()?
            }
            (None, without_t5) => {
                let tokens = if without_t5 == WithoutT5::Zeros { t5_tokens } else { 0 };
                let zeros = Tensor::new(vec![0.0; tokens * self.joint_width], &[tokens, self.joint_width])?;
                vec![zeros; prompts.len()]
            }
        };
        let parts = l.iter().zip(&g).zip(&t5).zip(warnings);
        let encoded = parts.map(|(((l, g), t5), warnings)| {
            let clip = concat_columns(&[&l.features, &g.features], self.joint_width)?;
            let pooled_width = l.pooled.width() + g.pooled.width();
            let pooled = concat_columns(&[&l.pooled, &g.pooled], pooled_width)?;
            let conditioning = Conditioning { context: Tensor::concat(&[&clip, t5])?, pooled };
            Ok(EncodedPrompt { conditioning, warnings })
        });
        encoded.collect()
    }
}

fn encode_clip(
    (tokenizer, clip): &(Lazy<Tokenizer>, Clip),
    name: &str,
    prompts: &[&str],
    warnings: &mut [Vec<String>],
    check_cancelled: &dyn Fn() -> Result<()>,
) -> Result<Vec<ClipOutput>> {
    let tokenizer = tokenizer.get()?;
    let ids = encode_ids(&tokenizer, name, tokenizer.max_length(), prompts, warnings)?;
    let outputs = clip.forward(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>(), check_cancelled)?;
    let on_cpu =
        |output: ClipOutput| Ok(ClipOutput { features: output.features.on_cpu()?, pooled: output.pooled.on_cpu()? });
    outputs.into_iter().map(on_cpu).collect()
}

/// Returns the token ids of each prompt. Adds a warning for each prompt that is truncated.
fn encode_ids(
    tokenizer: &Tokenizer,
    encoder: &str,
    length: usize,
    prompts: &[&str],
    warnings: &mut [Vec<String>],
) -> Result<Vec<Vec<u32>>> {
    let ids = prompts.iter().zip(warnings).map(|(prompt, warnings)| {
        let tokens = tokenizer.encode(prompt, length)?;
        if let Some(truncated) = tokens.truncated {
            warnings.push(format!(
                "the prompt exceeds {encoder}'s {length} tokens, so this part was ignored: {truncated:?}"
            ));
        }
        Ok(tokens.ids)
    });
    ids.collect()
}

/// Concatenates the columns of `parts` and pads them with zeros to `width` columns.
fn concat_columns(parts: &[&Tensor], width: usize) -> Result<Tensor> {
    let rows = parts.first().and_then(|part| part.shape().first().copied()).unwrap_or(0);
    let Some(padding) = width.checked_sub(parts.iter().map(|part| part.width()).sum()) else {
        return Err(Error::malformed(
            "transformer/config.json",
            "`joint_attention_dim` is smaller than the CLIP encoders' width; \
             the files belong to different models: download them from one source",
        ));
    };
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for part in parts {
            values.extend_from_slice(part.rows(row..row + 1)?.values());
        }
        values.resize(values.len() + padding, 0.0);
    }
    Tensor::new(values, &[rows, width])
}
