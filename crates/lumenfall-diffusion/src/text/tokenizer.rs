//! Tokenizers: from a prompt to token ids, padded and truncated as the encoders expect.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokenizers::models::unigram::Unigram;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{PreTokenizerWrapper, Tokenizer as Inner};

use super::sequences::Sequence;
use super::vocabulary::clip_vocabulary;
use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// The words of CLIP: special tokens, contractions, runs of letters, single digits, and runs of other characters.
const CLIP_WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";
/// The special tokens at the end of CLIP's vocabulary.
pub(crate) const CLIP_SPECIALS: [&str; 2] = [CLIP_START, CLIP_END];
const CLIP_WORD_END: &str = "</w>";
const T5_END: &str = "</s>";

/// A tokenizer with its start, end and padding tokens.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    inner: Inner,
    start: Option<u32>,
    end: u32,
    pad: u32,
    max_length: usize,
}

/// The relevant fields of `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    model_max_length: Option<f64>,
    #[serde(default)]
    pad_token: Option<Value>,
    /// The special tokens by id, which are matched before all others. CLIP-G's padding token "!" is one, also in prompts.
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, Value>,
}

/// The relevant fields of the `tokenizer.json` of T5.
#[derive(Deserialize)]
struct UnigramFile<'a> {
    #[serde(borrow)]
    model: UnigramModel<'a>,
}

#[derive(Deserialize)]
struct UnigramModel<'a> {
    /// The tokens and their scores. serde_json may read a number with a wrong last digit, which decides between sequences of
    /// tokens that have the same sum of scores.
    #[serde(borrow)]
    vocab: Vec<(String, &'a RawValue)>,
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
}

impl Tokenizer {
    /// Loads a CLIP tokenizer from `vocab.json` and `merges.txt`, or from `tokenizer.json`.
    pub(crate) fn clip(files: &ModelFiles, folder: &str, max_positions: usize) -> Result<Self> {
        let config = config(files, folder)?;
        let merges = format!("{folder}/merges.txt");
        let inner = if files.exists(&merges) {
            let vocabulary = match files {
                // The built-in tokenizers have only the merges.
                ModelFiles::Embedded(_) if !files.exists(&format!("{folder}/vocab.json")) => {
                    clip_vocabulary(&text(files, &merges)?, CLIP_SPECIALS)
                }
                _ => files.json(&format!("{folder}/vocab.json"))?,
            };
            let json = clip_json(files, &merges, vocabulary, &config)?;
            parse(files, &merges, &json.to_string())?
        } else {
            let name = format!("{folder}/tokenizer.json");
            parse(files, &name, &text(files, &name)?)?
        };
        let token = |text: &str| id_of(&inner, files, folder, text);
        let end = token(CLIP_END)?;
        // CLIP-L uses its end token, CLIP-G "!".
        let pad = match config.pad_token.as_ref().and_then(token_text) {
            Some(text) => token(text)?,
            None => end,
        };
        let start = Some(token(CLIP_START)?);
        let max_length = max_length(&config, 77).min(max_positions);
        Ok(Self { inner, start, end, pad, max_length })
    }

    /// Loads a T5 tokenizer from `tokenizer.json`.
    pub(crate) fn t5(files: &ModelFiles, folder: &str) -> Result<Self> {
        let name = format!("{folder}/tokenizer.json");
        let json = text(files, &name)?;
        let mut inner = parse(files, &name, &json)?;
        // `parse` has read the scores inexactly.
        inner.with_model(unigram(&json).map_err(|reason| invalid(files, &name, &reason))?);
        // SentencePiece first splits at whitespace. Some converted files lack this step, which keeps trailing whitespace.
        if let Some(PreTokenizerWrapper::Metaspace(splitter)) = inner.get_pre_tokenizer() {
            let steps = vec![WhitespaceSplit.into(), splitter.clone().into()];
            inner.with_pre_tokenizer(Some(PreTokenizers::new(steps)));
        }
        let config = config(files, folder)?;
        let end = id_of(&inner, files, folder, T5_END)?;
        let pad = match config.pad_token.as_ref().and_then(token_text) {
            Some(text) => id_of(&inner, files, folder, text)?,
            None => 0,
        };
        Ok(Self { inner, start: None, end, pad, max_length: max_length(&config, 512) })
    }

    /// Returns the maximum number of tokens.
    pub(crate) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Returns the number of tokens of text in a sequence of `length` tokens.
    pub(super) fn room(&self, length: usize) -> usize {
        length.saturating_sub(1 + usize::from(self.start.is_some()))
    }

    /// Returns the token ids of a text, and the position of each in the text.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let encoding = self.inner.encode(text, false).map_err(|error| {
            Error::Tokenizer(format!("cannot tokenize the prompt: {error}; remove its unusual characters"))
        })?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| *start);
        Ok(encoding.get_ids().iter().copied().zip(starts).collect())
    }

    /// Adds the start token, the end token and padding to the ids of a text with their weights.
    pub(super) fn sequence(&self, words: &[(u32, f32)], length: usize) -> Sequence {
        let (words, weights): (Vec<u32>, Vec<f32>) = words.iter().copied().unzip();
        let mut ids: Vec<u32> = self.start.into_iter().chain(words).chain([self.end]).collect();
        let mut weights: Vec<f32> = self.start.map(|_| 1.0).into_iter().chain(weights).collect();
        ids.resize(length, self.pad);
        weights.resize(length, 1.0);
        Sequence { ids, weights }
    }

    /// Returns the ids of a prompt whose end is left out if it does not fit.
    #[cfg(test)]
    pub(crate) fn ids(&self, prompt: &str, length: usize) -> Vec<u32> {
        let segments = super::PromptWeights::Off.parse(prompt);
        self.encode(&segments, length, super::Fit::Truncate).unwrap().sequences.remove(0).ids
    }
}

fn text(files: &ModelFiles, name: &str) -> Result<String> {
    let problem = |_| Error::malformed(files.path(name), "is not UTF-8 text; download it again");
    String::from_utf8(files.read(name)?).map_err(problem)
}

fn parse(files: &ModelFiles, name: &str, json: &str) -> Result<Inner> {
    // `from_bytes` is generic: it would compile the whole deserializer a second time, in this crate.
    let mut inner: Inner = json.parse().map_err(|error| invalid(files, name, &error))?;
    // `Tokenizer::encode` pads and truncates.
    inner.with_padding(None).with_truncation(None).map_err(|error| invalid(files, name, &error))?;
    Ok(inner)
}

fn invalid(files: &ModelFiles, name: &str, error: &tokenizers::Error) -> Error {
    Error::malformed(files.path(name), format!("is not a valid tokenizer ({error}); download it again"))
}

/// Reads the model of T5 with exact scores.
fn unigram(json: &str) -> tokenizers::Result<Unigram> {
    let UnigramFile { model: UnigramModel { vocab, unk_id, byte_fallback } } = serde_json::from_str(json)?;
    let exact = |(token, score): (String, &RawValue)| Ok((token, score.get().parse()?));
    let vocab = vocab.into_iter().map(exact).collect::<tokenizers::Result<_>>()?;
    Unigram::from(vocab, unk_id, byte_fallback)
}

fn config(files: &ModelFiles, folder: &str) -> Result<TokenizerConfig> {
    let name = format!("{folder}/tokenizer_config.json");
    if files.exists(&name) { files.json(&name) } else { Ok(TokenizerConfig::default()) }
}

fn max_length(config: &TokenizerConfig, default: usize) -> usize {
    // A file without a limit contains 1e30.
    config.model_max_length.filter(|length| *length >= 2.0 && *length < 1e6).map_or(default, |length| length as usize)
}

/// Returns the text of a token, which is a string or an object with a string.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn id_of(inner: &Inner, files: &ModelFiles, folder: &str, token: &str) -> Result<u32> {
    inner.token_to_id(token).ok_or_else(|| no_token(files, folder, token))
}

fn no_token(files: &ModelFiles, name: &str, token: &str) -> Error {
    let reason =
        format!("the tokenizer has no token {token:?}, so it belongs to another model; download the files again");
    Error::malformed(files.path(name), reason)
}

/// Converts `vocab.json` and `merges.txt` to the format of `tokenizer.json`.
fn clip_json(
    files: &ModelFiles,
    merges_name: &str,
    vocabulary: Map<String, Value>,
    config: &TokenizerConfig,
) -> Result<Value> {
    let merges_text = text(files, merges_name)?;
    let merges = merges_text.lines().filter(|line| !line.starts_with("#version") && line.contains(' '));
    let merges: Vec<&str> = merges.collect();
    // As in transformers, a special token is matched in the prompt before it is lower-cased, unless it is "normalized".
    let configured = config.added_tokens_decoder.values().filter_map(|token| {
        Some((token_text(token)?, token.get("normalized").and_then(Value::as_bool).unwrap_or(false)))
    });
    let mut special: Vec<(&str, bool)> = configured.chain([(CLIP_START, false), (CLIP_END, false)]).collect();
    special.sort_by_key(|(token, _)| vocabulary.get(*token).and_then(Value::as_u64));
    special.dedup_by_key(|(token, _)| *token);

    if let Some((token, _)) = special.iter().find(|(token, _)| !vocabulary.contains_key(*token)) {
        return Err(no_token(files, merges_name, token));
    }

    // Every other token of more than one character results from a merge.
    let merged: HashSet<String> = merges.iter().map(|merge| merge.replace(' ', "")).collect();
    let is_single = |token: &str| token.strip_suffix(CLIP_WORD_END).unwrap_or(token).chars().nth(1).is_none();
    let is_special = |token: &str| special.iter().any(|(special, _)| *special == token);
    let missing = vocabulary.keys().find(|token| !is_single(token) && !merged.contains(*token) && !is_special(token));
    if let Some(token) = missing {
        let reason = format!(
            "has {} merges, and none of them results in the token {token:?} of vocab.json, so it is truncated or belongs to \
             another model; download both files again",
            merges.len()
        );
        return Err(Error::malformed(files.path(merges_name), reason));
    }

    let added = special.iter().map(|(token, normalized)| {
        json!({ "id": vocabulary.get(*token), "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": true })
    });
    Ok(json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" },
            { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
            { "type": "Lowercase" },
        ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": CLIP_WORDS }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        ] },
        "model": { "type": "BPE", "unk_token": CLIP_END, "continuing_subword_prefix": "",
                   "end_of_word_suffix": CLIP_WORD_END, "fuse_unk": false, "vocab": vocabulary, "merges": merges },
    }))
}

#[cfg(test)]
mod tests;
