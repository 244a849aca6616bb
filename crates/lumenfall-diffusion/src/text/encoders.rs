//! The combination of the three text encoders.

use super::emphasis;
use super::options::{LongPrompts, Reading, Texts};
use super::recent::{EncodedPrompt, RecentPrompts};
use super::sequences::{Fit, Sequence, Tokens};
use super::stored::StoredPrompts;
use super::tokenizer::Tokenizer;
use super::weights::PromptWeights;
use crate::checkpoint::Encoder;
use crate::checkpoint::config::{ClipConfig, T5Config};
use crate::error::{Error, Result};
use crate::models::{Clip, ClipOutput, Conditioning, T5};
use crate::placement::Lazy;
use crate::tensor::Tensor;
use crate::weights::layout::PartKind;
use crate::weights::{PartSummary, Weights};

/// The default number of T5 tokens, as in diffusers.
const T5_TOKENS: usize = 256;

/// The size of a T5 encoder in bytes that takes seconds to read.
const LARGE_T5: u64 = 1 << 30;

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
    stored: Option<StoredPrompts>,
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
            stored: None,
        })
    }

    /// Describes the encoders.
    pub(crate) fn summaries(&self) -> impl Iterator<Item = PartSummary> {
        let t5 = self.t5.as_ref().map(|(_, t5)| (PartKind::T5, t5.weights()));
        let clips = [(PartKind::ClipL, self.clip_l.1.weights()), (PartKind::ClipG, self.clip_g.1.weights())];
        clips.into_iter().chain(t5).map(|(part, weights)| PartSummary::new(part, weights))
    }

    /// Returns the memory for encoding a number of prompts of at most `context` tokens, in bytes.
    pub(crate) fn working_bytes(&self, reading: &Reading, prompts: usize, context: usize) -> u64 {
        // The present block and the next one, if they do not stay in their file.
        let weights = |weights: &Weights, block: u64| if weights.stay_in_files() { 0 } else { 2 * block };
        self.largest(reading, prompts, context, true, &weights)
    }

    /// Returns the memory of a GPU for encoding prompts, in bytes.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_working_bytes(&self, reading: &Reading, prompts: usize, context: usize, t5_on_cpu: bool) -> u64 {
        let weights = |weights: &Weights, block: u64| 2 * block + weights.bytes("text_projection");
        let bytes = self.largest(reading, prompts, context, !t5_on_cpu, &weights);
        // A buffer may be a quarter larger than what is in it.
        bytes + bytes / 4
    }

    /// Returns the memory of the encoder that needs most. `weights` returns that of an encoder's weights, for the size of its largest
    /// block.
    fn largest(
        &self,
        reading: &Reading,
        prompts: usize,
        context: usize,
        with_t5: bool,
        weights: &dyn Fn(&Weights, u64) -> u64,
    ) -> u64 {
        // Weights of words may also need the empty prompt.
        let prompts = prompts + usize::from(reading.weights == PromptWeights::ComfyUi);
        let t5_tokens = reading.t5_tokens.unwrap_or(T5_TOKENS);
        let sequences = prompts * (context.saturating_sub(t5_tokens) / self.clip_l.1.max_length().max(1)).max(1);
        let clips = [&self.clip_l.1, &self.clip_g.1]
            .map(|clip| clip.working_bytes(sequences) + weights(clip.weights(), clip.largest_layer_bytes()));
        let t5 = self.t5.iter().filter(|_| with_t5);
        let t5 =
            t5.map(|(_, t5)| t5.working_bytes(t5_tokens, prompts) + weights(t5.weights(), t5.largest_block_bytes()));
        clips.into_iter().chain(t5).max().unwrap_or(0)
    }

    /// Returns the size of the largest block in memory, in bytes.
    #[cfg(feature = "gpu")]
    pub(crate) fn largest_block_bytes(&self) -> u64 {
        let clip = self.clip_l.1.largest_layer_bytes().max(self.clip_g.1.largest_layer_bytes());
        clip.max(self.t5.as_ref().map_or(0, |(_, t5)| t5.largest_block_bytes()))
    }

    /// Returns the number of tokens of the longest of encoded prompts.
    pub(crate) fn context_tokens(&self, prompts: &[Texts], reading: &Reading) -> Result<usize> {
        let mut chunks = 1;
        if reading.long_prompts == LongPrompts::Chunks {
            let (l, g) = (self.clip_l.0.get()?, self.clip_g.0.get()?);
            for texts in prompts {
                for (tokenizer, text) in [(&l, &texts.clip_l), (&g, &texts.clip_g)] {
                    chunks = chunks.max(clip_sequences(tokenizer, "CLIP", text, reading, &mut Vec::new())?.len());
                }
            }
        }
        Ok(chunks * self.clip_l.1.max_length() + reading.t5_tokens.unwrap_or(T5_TOKENS))
    }

    /// Uses encoded prompts on disk.
    pub(crate) fn use_stored(&mut self, stored: StoredPrompts) {
        self.stored = Some(stored);
    }

    /// Returns whether encoding a prompt takes so long that the empty prompt is stored.
    pub(crate) fn are_large(&self) -> bool {
        self.t5.as_ref().is_some_and(|(_, t5)| t5.weights().bytes("") > LARGE_T5)
    }

    /// Encodes prompts, unless they are known. Calls `check_cancelled` before each block, and adds warnings of truncated prompts.
    pub(crate) fn encode(
        &self,
        prompts: &[Texts],
        reading: &Reading,
        warnings: &mut Vec<String>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Conditioning>> {
        let mut known: Vec<Option<EncodedPrompt>> = Vec::with_capacity(prompts.len());
        for texts in prompts {
            let mut encoded = self.recent.get(texts, reading);
            if let (None, Some(stored)) = (&encoded, &self.stored) {
                encoded = stored.get(texts, reading, warnings);
                encoded.iter().for_each(|encoded| self.recent.add(texts, reading, encoded));
            }
            known.push(encoded);
        }
        let new: Vec<_> = prompts.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(new, _)| new).collect();
        let encoded = if new.is_empty() { Vec::new() } else { self.encode_new(&new, reading, check_cancelled)? };
        for (texts, encoded) in new.iter().zip(&encoded) {
            self.recent.add(texts, reading, encoded);
            if let Some(stored) = &self.stored {
                stored.add(texts, reading, encoded, warnings);
            }
        }
        let mut encoded = encoded.into_iter();
        let all = known.into_iter().filter_map(|known| known.or_else(|| encoded.next()));
        Ok(all
            .map(|prompt| {
                warnings.extend(prompt.warnings);
                prompt.conditioning
            })
            .collect())
    }

    fn encode_new(
        &self,
        prompts: &[&Texts],
        reading: &Reading,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<EncodedPrompt>> {
        let mut warnings = vec![Vec::new(); prompts.len()];
        let (l_tokenizer, g_tokenizer) = (self.clip_l.0.get()?, self.clip_g.0.get()?);
        let both = prompts.iter().zip(&mut warnings).map(|(texts, warnings)| {
            let l = clip_sequences(&l_tokenizer, "CLIP-L", &texts.clip_l, reading, warnings)?;
            let g = clip_sequences(&g_tokenizer, "CLIP-G", &texts.clip_g, reading, warnings)?;
            // As in ComfyUI, the shorter of two different prompts is continued with empty chunks.
            let chunks = l.len().max(g.len());
            Ok((filled(l, &l_tokenizer, chunks), filled(g, &g_tokenizer, chunks)))
        });
        let (l_sequences, g_sequences): (Vec<_>, Vec<_>) = both.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let l = encode_clip(&self.clip_l.1, &l_sequences, empty(&l_tokenizer), reading, check_cancelled)?;
        let g = encode_clip(&self.clip_g.1, &g_sequences, empty(&g_tokenizer), reading, check_cancelled)?;
        let t5 = self.encode_t5(prompts, reading, &mut warnings, check_cancelled)?;
        let (mut l, mut g) = (l.into_iter(), g.into_iter());
        let parts = l_sequences.iter().zip(&g_sequences).zip(&t5).zip(warnings);
        let encoded = parts.map(|(((l_sequences, g_sequences), t5), warnings)| {
            let (mut rows, mut pooled) = (Vec::new(), None);
            let chunks = l_sequences.iter().zip(g_sequences).zip(l.by_ref().zip(g.by_ref()));
            for ((l_sequence, g_sequence), (l, g)) in chunks {
                let mut features = [l.features, g.features];
                if reading.weights == PromptWeights::A1111 && (l_sequence.is_weighted() || g_sequence.is_weighted()) {
                    let [l, g] = features;
                    features = emphasis::multiply([(l, &*l_sequence.weights), (g, &*g_sequence.weights)])?;
                }
                rows.push(concat_columns(&features.each_ref(), self.joint_width)?);
                // The pooled output is that of the first chunk.
                pooled = match pooled {
                    None => Some(concat_columns(&[&l.pooled, &g.pooled], l.pooled.width() + g.pooled.width())?),
                    first => first,
                };
            }
            let context = Tensor::concat(&rows.iter().chain([t5]).collect::<Vec<_>>())?;
            let pooled = pooled.ok_or_else(|| Error::Compute("a prompt has no chunks".into()))?;
            Ok(EncodedPrompt { conditioning: Conditioning { context, pooled }, warnings })
        });
        encoded.collect()
    }

    /// Returns T5's output for each prompt, or its replacement.
    fn encode_t5(
        &self,
        prompts: &[&Texts],
        reading: &Reading,
        warnings: &mut [Vec<String>],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Tensor>> {
        let Some((tokenizer, t5)) = &self.t5 else {
            let tokens = match self.without_t5 {
                WithoutT5::Zeros => reading.t5_tokens.unwrap_or(T5_TOKENS),
                WithoutT5::Omit => 0,
            };
            let zeros = Tensor::new(vec![0.0; tokens * self.joint_width], &[tokens, self.joint_width])?;
            return Ok(vec![zeros; prompts.len()]);
        };
        let tokenizer = tokenizer.get()?;
        let length = reading.t5_tokens.unwrap_or_else(|| T5_TOKENS.min(tokenizer.max_length()));
        let mut sequences = Vec::with_capacity(prompts.len());
        for (texts, warnings) in prompts.iter().zip(warnings) {
            let tokens = tokenizer.encode(&reading.weights.parse(&texts.t5), length, Fit::Truncate)?;
            warnings.extend(truncation(&tokens, "T5", length));
            sequences.extend(tokens.sequences);
        }
        let empty = refer_to_empty(&sequences, reading).then(|| tokenizer.sequence(&[], length));
        let ids: Vec<_> = sequences.iter().chain(&empty).map(|sequence| &*sequence.ids).collect();
        let outputs = t5.forward(&ids, check_cancelled)?;
        let mut outputs = outputs.iter().map(Tensor::on_cpu).collect::<Result<Vec<_>>>()?;
        let Some(empty) = empty.as_ref().and_then(|_| outputs.pop()) else { return Ok(outputs) };
        let weighted = outputs.into_iter().zip(&sequences);
        weighted.map(|(output, sequence)| emphasis::interpolate(output, &sequence.weights, &empty)).collect()
    }
}

/// Returns the chunks of a prompt for a CLIP encoder.
fn clip_sequences(
    tokenizer: &Tokenizer,
    encoder: &str,
    text: &str,
    reading: &Reading,
    warnings: &mut Vec<String>,
) -> Result<Vec<Sequence>> {
    let length = tokenizer.max_length();
    let tokens = tokenizer.encode(&reading.weights.parse(text), length, reading.clip_fit())?;
    warnings.extend(truncation(&tokens, encoder, length));
    Ok(tokens.sequences)
}

/// Returns a warning if a prompt was truncated.
fn truncation(tokens: &Tokens, encoder: &str, length: usize) -> Option<String> {
    let truncated = tokens.truncated.as_ref()?;
    Some(format!("the prompt exceeds {encoder}'s {length} tokens, so this part was ignored: {truncated:?}"))
}

/// Returns the sequence of the empty prompt for a CLIP encoder.
fn empty(tokenizer: &Tokenizer) -> Sequence {
    tokenizer.sequence(&[], tokenizer.max_length())
}

/// Adds sequences of the empty prompt.
fn filled(mut sequences: Vec<Sequence>, tokenizer: &Tokenizer, count: usize) -> Vec<Sequence> {
    sequences.resize_with(count, || empty(tokenizer));
    sequences
}

/// Returns whether the weights of a sequence refer to the empty prompt.
fn refer_to_empty<'a>(sequences: impl IntoIterator<Item = &'a Sequence>, reading: &Reading) -> bool {
    reading.weights == PromptWeights::ComfyUi && sequences.into_iter().any(Sequence::is_weighted)
}

/// Encodes the chunks of all prompts, one after the other.
fn encode_clip(
    clip: &Clip,
    prompts: &[Vec<Sequence>],
    empty: Sequence,
    reading: &Reading,
    check_cancelled: &dyn Fn() -> Result<()>,
) -> Result<Vec<ClipOutput>> {
    let sequences = || prompts.iter().flatten();
    let empty = Some(empty).filter(|_| refer_to_empty(sequences(), reading));
    let ids: Vec<_> = sequences().chain(&empty).map(|sequence| &*sequence.ids).collect();
    let on_cpu =
        |output: ClipOutput| Ok(ClipOutput { features: output.features.on_cpu()?, pooled: output.pooled.on_cpu()? });
    let mut outputs = clip.forward(&ids, check_cancelled)?.into_iter().map(on_cpu).collect::<Result<Vec<_>>>()?;
    let Some(empty) = empty.as_ref().and_then(|_| outputs.pop()) else { return Ok(outputs) };
    let weighted = outputs.into_iter().zip(sequences()).map(|(output, sequence)| {
        let features = emphasis::interpolate(output.features, &sequence.weights, &empty.features)?;
        Ok(ClipOutput { features, pooled: output.pooled })
    });
    weighted.collect()
}

/// Concatenates the columns of `parts` and pads them with zeros to `width` columns.
fn concat_columns(parts: &[&Tensor], width: usize) -> Result<Tensor> {
    let rows = parts.first().and_then(|part| part.shape().first().copied()).unwrap_or(0);
    // When the model was opened, the widths were compared.
    let padding = width.saturating_sub(parts.iter().map(|part| part.width()).sum());
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for part in parts {
            values.extend_from_slice(part.rows(row..row + 1)?.values());
        }
        values.resize(values.len() + padding, 0.0);
    }
    Tensor::new(values, &[rows, width])
}
