//! Tokenizers: from a prompt to token ids, padded and truncated as the encoders expect.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer as Inner;

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// The words of CLIP: contractions, runs of letters, single digits, and runs of other characters.
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";
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

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The start token, the prompt, the end token and padding, always of the requested length.
    pub(crate) ids: Vec<u32>,
    /// The end of the prompt, if it did not fit.
    pub(crate) truncated: Option<String>,
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

impl Tokenizer {
    /// Loads a CLIP tokenizer from `vocab.json` and `merges.txt`, or from `tokenizer.json`.
    pub(crate) fn clip(files: &ModelFiles, folder: &str, max_positions: usize) -> Result<Self> {
        let config = config(files, folder)?;
        let merges = format!("{folder}/merges.txt");
        let inner = if files.exists(&merges) {
            let vocabulary: Value = files.json(&format!("{folder}/vocab.json"))?;
            let merges_text = String::from_utf8(files.read(&merges)?)
                .map_err(|_| Error::malformed(files.path(&merges), "is not UTF-8 text; download it again"))?;
            parse(files, &merges, &clip_json(&vocabulary, &merges_text, &config))?
        } else {
            let (name, json) = tokenizer_json(files, folder)?;
            parse(files, &name, &json)?
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
        let (name, mut json) = tokenizer_json(files, folder)?;
        // SentencePiece first splits at whitespace. Some converted files lack this step, which keeps trailing whitespace.
        if let Some(splitter) = json.get_mut("pre_tokenizer")
            && splitter.get("type").and_then(Value::as_str) == Some("Metaspace")
        {
            *splitter =
                json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, splitter.take()] });
        }
        let inner = parse(files, &name, &json)?;
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

    /// Converts a prompt to exactly `length` ids.
    pub(crate) fn encode(&self, prompt: &str, length: usize) -> Result<Tokens> {
        let encoding = self.inner.encode(prompt, false).map_err(|error| {
            Error::Tokenizer(format!("cannot tokenize the prompt: {error}; remove its unusual characters"))
        })?;
        let room = length.saturating_sub(1 + usize::from(self.start.is_some()));
        let words = encoding.get_ids();
        let mut ids: Vec<u32> = self.start.into_iter().chain(words.iter().copied().take(room)).collect();
        ids.push(self.end);
        ids.resize(length, self.pad);
        let truncated = encoding.get_offsets().get(room).and_then(|(start, _)| prompt.get(*start..)).map(str::to_owned);
        Ok(Tokens { ids, truncated })
    }
}

/// Reads `tokenizer.json` and returns its name and content.
fn tokenizer_json(files: &ModelFiles, folder: &str) -> Result<(String, Value)> {
    let name = format!("{folder}/tokenizer.json");
    let mut json: Value = files.json(&name)?;
    // `Tokenizer::encode` pads and truncates.
    if let Some(map) = json.as_object_mut() {
        map.insert("padding".into(), Value::Null);
        map.insert("truncation".into(), Value::Null);
    }
    Ok((name, json))
}

fn parse(files: &ModelFiles, name: &str, tokenizer: &Value) -> Result<Inner> {
    // `from_bytes` is generic: it would compile the whole deserializer a second time, in this crate.
    tokenizer.to_string().parse().map_err(|error: tokenizers::Error| {
        Error::malformed(files.path(name), format!("is not a valid tokenizer ({error}); download it again"))
    })
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
    inner.token_to_id(token).ok_or_else(|| {
        Error::malformed(
            files.path(folder),
            format!("the tokenizer has no token {token:?}, so it belongs to another model; download the files again"),
        )
    })
}

/// Converts `vocab.json` and `merges.txt` to the format of `tokenizer.json`.
fn clip_json(vocabulary: &Value, merges: &str, config: &TokenizerConfig) -> Value {
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version") && line.contains(' ')).collect();
    let configured = config.added_tokens_decoder.values().filter_map(token_text);
    let mut special: Vec<&str> = configured.chain([CLIP_START, CLIP_END]).collect();
    special.sort_by_key(|text| vocabulary.get(*text).and_then(Value::as_u64));
    special.dedup();
    let added = special.into_iter().map(|text| {
        json!({ "id": vocabulary.get(text), "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    });
    json!({
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
        "model": { "type": "BPE", "unk_token": CLIP_END, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
                   "fuse_unk": false, "vocab": vocabulary, "merges": merges },
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// The token ids of transformers, written by `tools/tokenizer_golden.py`.
    #[derive(Deserialize)]
    struct Expected {
        prompt: String,
        clip_l: Vec<u32>,
        clip_g: Vec<u32>,
        t5: Vec<u32>,
    }

    fn data(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    /// Returns CLIP's vocabulary: all bytes, all bytes at the end of a word, the merges, and the two special tokens.
    fn clip_vocabulary(merges: &str) -> Value {
        let printable = (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff).map(char::from);
        let others = (0..68).filter_map(|i| char::from_u32(256 + i));
        let bytes: Vec<String> = printable.chain(others).map(String::from).collect();
        let ends = bytes.iter().map(|byte| format!("{byte}</w>"));
        let merged = merges.lines().filter(|line| line.contains(' ') && !line.starts_with("#version"));
        let merged = merged.map(|line| line.replace(' ', ""));
        let specials = [CLIP_START.to_owned(), CLIP_END.to_owned()];
        let all = bytes.clone().into_iter().chain(ends).chain(merged).chain(specials);
        Value::Object(all.zip(0u32..).map(|(token, id)| (token, id.into())).collect())
    }

    fn full_tokenizers(folder: &std::path::Path) -> [Tokenizer; 3] {
        let merges = std::fs::read_to_string(data("clip-merges.txt")).unwrap();
        let vocabulary = clip_vocabulary(&merges).to_string();
        let clip = |name: &str, config: Value| {
            let part = folder.join(name);
            std::fs::create_dir(&part).unwrap();
            std::fs::write(part.join("merges.txt"), &merges).unwrap();
            std::fs::write(part.join("vocab.json"), &vocabulary).unwrap();
            std::fs::write(part.join("tokenizer_config.json"), config.to_string()).unwrap();
        };
        clip("tokenizer", json!({ "pad_token": CLIP_END, "model_max_length": 77 }));
        let padding = json!({ "0": { "content": "!", "special": true } });
        clip("tokenizer_2", json!({ "pad_token": "!", "model_max_length": 77, "added_tokens_decoder": padding }));
        std::fs::create_dir(folder.join("tokenizer_3")).unwrap();
        std::fs::copy(data("t5-tokenizer.json"), folder.join("tokenizer_3/tokenizer.json")).unwrap();
        let files = ModelFiles::Folder(folder.to_path_buf());
        [
            Tokenizer::clip(&files, "tokenizer", 77).unwrap(),
            Tokenizer::clip(&files, "tokenizer_2", 77).unwrap(),
            Tokenizer::t5(&files, "tokenizer_3").unwrap(),
        ]
    }

    #[test]
    fn token_ids_equal_those_of_transformers() {
        let folder = tempfile::tempdir().unwrap();
        let [clip_l, clip_g, t5] = full_tokenizers(folder.path());
        let expected: Vec<Expected> = serde_json::from_slice(&std::fs::read(data("token-ids.json")).unwrap()).unwrap();
        assert!(expected.len() > 30);
        for Expected { prompt, clip_l: l, clip_g: g, t5: t } in expected {
            for (name, tokenizer, ids, pad, length) in
                [("CLIP-L", &clip_l, l, 49407, 77), ("CLIP-G", &clip_g, g, 0, 77), ("T5", &t5, t, 0, 256)]
            {
                let mut padded = ids;
                padded.resize(length, pad);
                assert_eq!(tokenizer.encode(&prompt, length).unwrap().ids, padded, "{name} of {prompt:?}");
            }
        }
    }

    #[test]
    fn the_truncated_part_is_returned_as_the_user_wrote_it() {
        let folder = tempfile::tempdir().unwrap();
        let [clip_l, ..] = full_tokenizers(folder.path());
        let tokens = clip_l.encode("One Two THREE Four five", 5).unwrap();
        assert_eq!(tokens.truncated.as_deref().map(str::trim), Some("Four five"));
        assert_eq!(clip_l.encode("One Two THREE", 5).unwrap().truncated, None);
    }
}
