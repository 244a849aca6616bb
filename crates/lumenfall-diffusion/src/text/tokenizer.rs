//! Prompts to token ids, padded and cut as the models expect them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer as Inner;

use crate::error::{Error, Result};
use crate::weights::ModelFiles;

/// CLIP's words: contractions, runs of letters, single digits, runs of anything else.
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

const CLIP_START: &str = "<|startoftext|>";
const CLIP_END: &str = "<|endoftext|>";
const T5_END: &str = "</s>";

/// A tokenizer with its padding and its start and end tokens.
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
    /// Start, words, end, padding: always as many as were asked for.
    pub(crate) ids: Vec<u32>,
    /// The end of the prompt that did not fit.
    pub(crate) cut: Option<String>,
}

/// The parts of `tokenizer_config.json` that matter here.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    model_max_length: Option<f64>,
    #[serde(default)]
    pad_token: Option<Value>,
    /// Tokens that are looked for before anything else, by id. CLIP-G's padding "!" is one, in prompts too.
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, Value>,
}

impl Tokenizer {
    /// A CLIP tokenizer: `vocab.json` and `merges.txt`, or `tokenizer.json`, in `folder`.
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
        // CLIP-L pads with its end token, CLIP-G with "!": each says so in its configuration.
        let pad = match config.pad_token.as_ref().and_then(token_text) {
            Some(text) => token(text)?,
            None => end,
        };
        let start = Some(token(CLIP_START)?);
        let max_length = max_length(&config, 77).min(max_positions);
        Ok(Self { inner, start, end, pad, max_length })
    }

    /// A T5 tokenizer: `tokenizer.json` in `folder`.
    pub(crate) fn t5(files: &ModelFiles, folder: &str) -> Result<Self> {
        let (name, mut json) = tokenizer_json(files, folder)?;
        // SentencePiece splits at white space first, so that none is left at the ends; some converted files lost that.
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

    /// How many tokens the encoder takes at the most.
    pub(crate) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Encodes a prompt to exactly `length` ids.
    pub(crate) fn encode(&self, prompt: &str, length: usize) -> Result<Tokens> {
        let encoding = self.inner.encode(prompt, false).map_err(|error| {
            Error::Tokenizer(format!("cannot tokenize the prompt: {error}; leave out its unusual characters"))
        })?;
        let room = length.saturating_sub(1 + usize::from(self.start.is_some()));
        let words = encoding.get_ids();
        let mut ids: Vec<u32> = self.start.into_iter().chain(words.iter().copied().take(room)).collect();
        ids.push(self.end);
        ids.resize(length, self.pad);
        let cut = encoding.get_offsets().get(room).and_then(|(start, _)| prompt.get(*start..)).map(str::to_owned);
        Ok(Tokens { ids, cut })
    }
}

/// The name and the content of a folder's `tokenizer.json`.
fn tokenizer_json(files: &ModelFiles, folder: &str) -> Result<(String, Value)> {
    let name = format!("{folder}/tokenizer.json");
    let mut json: Value = files.json(&name)?;
    // Padding and truncation are ours to do, whatever the file was saved with.
    if let Some(map) = json.as_object_mut() {
        map.insert("padding".into(), Value::Null);
        map.insert("truncation".into(), Value::Null);
    }
    Ok((name, json))
}

fn parse(files: &ModelFiles, name: &str, tokenizer: &Value) -> Result<Inner> {
    Inner::from_bytes(tokenizer.to_string()).map_err(|error| {
        Error::malformed(files.path(name), format!("is no usable tokenizer ({error}); download it again"))
    })
}

fn config(files: &ModelFiles, folder: &str) -> Result<TokenizerConfig> {
    let name = format!("{folder}/tokenizer_config.json");
    if files.exists(&name) { files.json(&name) } else { Ok(TokenizerConfig::default()) }
}

fn max_length(config: &TokenizerConfig, default: usize) -> usize {
    // Files without a limit say 1e30.
    config.model_max_length.filter(|length| *length >= 2.0 && *length < 1e6).map_or(default, |length| length as usize)
}

/// A token is a string, or an object that holds one.
fn token_text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token.get("content")?.as_str())
}

fn id_of(inner: &Inner, files: &ModelFiles, folder: &str, token: &str) -> Result<u32> {
    inner.token_to_id(token).ok_or_else(|| {
        Error::malformed(
            files.path(folder),
            format!("the tokenizer has no token {token:?}; it belongs to another model: download this one's"),
        )
    })
}

/// The CLIP tokenizer of the two classic files, in the form of a `tokenizer.json`.
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

/// Against the ids that transformers gives for the full tokenizers; `tools/tokenizer_golden.py` wrote them down.
#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

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

    /// The vocabulary that belongs to CLIP's merges: all bytes, all bytes at a word's end, the merges, the two specials.
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
    fn full_tokenizers_give_the_ids_of_transformers() {
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
    fn what_does_not_fit_is_told_in_the_prompts_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let [clip_l, ..] = full_tokenizers(folder.path());
        let tokens = clip_l.encode("One Two THREE Four five", 5).unwrap();
        assert_eq!(tokens.cut.as_deref().map(str::trim), Some("Four five"));
        assert_eq!(clip_l.encode("One Two THREE", 5).unwrap().cut, None);
    }
}
