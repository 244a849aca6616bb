use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::super::{Fit, PromptWeights};
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

fn merges() -> String {
    String::from_utf8(BUILT_IN.read("tokenizer/merges.txt").unwrap()).unwrap()
}

/// Writes a CLIP tokenizer without a configuration.
fn write_clip(folder: &Path, merges: &str) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("merges.txt"), merges).unwrap();
    let vocabulary = Value::Object(clip_vocabulary(merges, [CLIP_START, CLIP_END]));
    std::fs::write(folder.join("vocab.json"), vocabulary.to_string()).unwrap();
}

fn clip(folder: &Path) -> Result<Tokenizer> {
    Tokenizer::clip(&ModelFiles::Folder(folder.parent().unwrap().to_path_buf()), "clip", 77)
}

const BUILT_IN: ModelFiles = ModelFiles::Embedded(lumenfall_tokenizers::FILES);
static CLIP_L: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::clip(&BUILT_IN, "tokenizer", 77).unwrap());
static CLIP_G: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::clip(&BUILT_IN, "tokenizer_2", 77).unwrap());
static T5: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::t5(&BUILT_IN, "tokenizer_3").unwrap());

#[test]
fn token_ids_equal_those_of_transformers() {
    let expected: Vec<Expected> = serde_json::from_slice(&std::fs::read(data("token-ids.json")).unwrap()).unwrap();
    assert!(expected.len() > 30);
    for Expected { prompt, clip_l, clip_g, t5 } in expected {
        for (tokenizer, ids, length) in [(&CLIP_L, clip_l, 77), (&CLIP_G, clip_g, 77), (&T5, t5, 256)] {
            let mut padded = ids;
            padded.resize(length, tokenizer.pad);
            assert_eq!(tokenizer.ids(&prompt, length), padded, "{prompt:?}");
        }
    }
}

/// Compares the ids of 5,000 prompts: repeated characters, special tokens in any case, all scripts, and English.
fn assert_hashes(column: usize, tokenizer: &Tokenizer, length: usize) {
    let hash = |ids: Vec<u32>| {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
        let state = bytes.fold(0x811c_9dc5_u32, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        format!("{:04x}", state >> 16 ^ state & 0xffff)
    };
    let file = std::fs::read_to_string(data("token-hashes.txt")).unwrap();
    let mut count = 0;
    for line in file.split_terminator('\n') {
        let (expected, prompt) = line.split_once(' ').unwrap();
        let prompt: String = serde_json::from_str(prompt).unwrap();
        let ids = tokenizer.ids(&prompt, length);
        assert_eq!(hash(ids), expected[column * 4..][..4], "{prompt:?}");
        count += 1;
    }
    assert_eq!(count, 5000);
}

#[test]
fn ids_of_clip_l_equal_those_of_transformers_for_5000_prompts() {
    assert_hashes(0, &CLIP_L, 77);
}

#[test]
fn ids_of_clip_g_equal_those_of_transformers_for_5000_prompts() {
    assert_hashes(1, &CLIP_G, 77);
}

#[test]
fn ids_of_t5_equal_those_of_transformers_for_5000_prompts() {
    assert_hashes(2, &T5, 128);
}

#[test]
fn case_and_kind_of_whitespace_make_no_difference_for_clip() {
    let ids = |prompt| CLIP_L.ids(prompt, 77);
    let expected = ids("a red fox in the snow");
    assert_eq!(ids("A Red FOX\tin\nthe\r\n  snow "), expected);
}

#[test]
fn special_tokens_are_matched_before_lower_casing_unless_configured_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("clip");
    write_clip(&folder, &merges());
    let ids = clip(&folder).unwrap().ids("a<|StartOfText|>b<|startoftext|>", 14);
    // Computed by transformers 5.24 for the same folder.
    assert_eq!(ids, [49406, 320, 27, 347, 993, 6659, 4160, 91, 285, 321, 49406, 49407, 49407, 49407]);
}

#[test]
fn a_truncated_file_of_merges_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("clip");
    let all = merges();
    write_clip(&folder, &all);
    let path = parent.path().join("clip/merges.txt");
    // The last one ends within the last line.
    for length in [0, 14, all.len() / 2, all.trim_end().rfind('\n').unwrap(), all.trim_end().len() - 5] {
        std::fs::write(&path, &all[..length]).unwrap();
        let error = clip(&folder).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("truncated") || error.contains("vocabulary"), "{error}");
    }
}

#[test]
fn mutated_files_do_not_panic() {
    let original = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model");
    let folder = tempfile::tempdir().unwrap();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let names = ["tokenizer/merges.txt", "tokenizer/vocab.json", "tokenizer/tokenizer_config.json"];
    let names = names.into_iter().chain(["tokenizer_3/tokenizer.json", "tokenizer_3/tokenizer_config.json"]);
    let contents: Vec<_> = names.map(|name| (name, std::fs::read(original.join(name)).unwrap())).collect();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    contents.iter().for_each(|(name, content)| write(name, content));
    let files = ModelFiles::Folder(folder.path().into());
    let mut refused = 0;
    for round in 0..300 {
        let (name, content) = &contents[round % contents.len()];
        let mut file = content.clone();
        let at = random(file.len());
        match random(4) {
            0 => file.truncate(at),
            1 => file[at] ^= 1 << random(8),
            2 => file[at] = b"0123456789[]{},:\"\n"[random(18)],
            _ => file.copy_within(at / 2..at / 2 + (content.len() - at).min(30), at),
        }
        write(name, &file);
        let tokenizer = match name.starts_with("tokenizer/") {
            true => Tokenizer::clip(&files, "tokenizer", 77),
            false => Tokenizer::t5(&files, "tokenizer_3"),
        };
        match tokenizer {
            Ok(tokenizer) => drop(tokenizer.ids("a Red circle, 東京 <|endoftext|>", 20)),
            Err(_) => refused += 1,
        }
        write(name, content);
    }
    assert!(refused > 100, "only {refused} of 300 mutated files were refused");
}

#[test]
fn the_truncated_part_is_returned_as_the_user_wrote_it() {
    let truncated = |weights: PromptWeights, prompt| {
        let truncated = CLIP_L.encode(&weights.parse(prompt), 5, Fit::Truncate).unwrap().truncated;
        truncated.map(|text| text.trim().to_owned())
    };
    assert_eq!(truncated(PromptWeights::Off, "One Two THREE Four five").as_deref(), Some("Four five"));
    assert_eq!(truncated(PromptWeights::Off, "One Two THREE"), None);
    assert_eq!(truncated(PromptWeights::A1111, "One (Two THREE Four:2) five").as_deref(), Some("Four five"));
}

#[test]
fn chunks_contain_the_whole_prompt_and_its_weights() {
    let encode = |weights: PromptWeights, fit| {
        let prompt = "(one two three:2) (four five six:3) seven BREAK eight";
        CLIP_L.encode(&weights.parse(prompt), 7, fit).unwrap().sequences
    };
    let words = |sequences: &[Sequence]| {
        let text = |sequence: &Sequence| {
            let ids = sequence.ids.iter().zip(&sequence.weights).filter(|(id, _)| **id < CLIP_L.end - 1);
            ids.map(|(id, weight)| format!("{}{weight}", CLIP_L.inner.id_to_token(*id).unwrap())).collect::<String>()
        };
        sequences.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(
        words(&encode(PromptWeights::A1111, Fit::Chunks)),
        ["one</w>2two</w>2three</w>2four</w>3five</w>3", "six</w>3seven</w>1", "eight</w>1"]
    );
    assert_eq!(
        words(&encode(PromptWeights::ComfyUi, Fit::ChunksOfWholeSegments)),
        ["one</w>2two</w>2three</w>2", "four</w>3five</w>3six</w>3", "seven</w>1break</w>1eight</w>1"]
    );
    assert!(
        encode(PromptWeights::A1111, Fit::Chunks).iter().all(|chunk| chunk.ids.len() == 7 && chunk.weights[0] == 1.0)
    );
    let empty = CLIP_L.encode(&PromptWeights::A1111.parse(""), 7, Fit::Chunks).unwrap().sequences;
    assert_eq!((empty.len(), &empty[0].ids), (1, &CLIP_L.ids("", 7)));
}
