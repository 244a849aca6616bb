use std::path::{Path, PathBuf};
use std::sync::LazyLock;

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
    std::fs::read_to_string(data("clip-merges.txt")).unwrap()
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

/// Writes a CLIP tokenizer. `pad` is its padding token, and its configuration is like that of Stable Diffusion 3.5 except
/// that the padding token is matched before the prompt is lower-cased.
fn write_clip(folder: &Path, vocabulary: &Value, merges: &str, pad: Option<&str>) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("merges.txt"), merges).unwrap();
    std::fs::write(folder.join("vocab.json"), vocabulary.to_string()).unwrap();
    let Some(pad) = pad else { return };
    let special = [CLIP_START, CLIP_END, pad].map(|token| {
        let id = vocabulary[token].to_string();
        (id, json!({ "content": token, "normalized": token != pad, "special": true }))
    });
    let config = json!({ "pad_token": pad, "model_max_length": 77, "added_tokens_decoder": Map::from_iter(special) });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

fn clip(folder: &Path) -> Result<Tokenizer> {
    Tokenizer::clip(&ModelFiles::Folder(folder.parent().unwrap().to_path_buf()), "clip", 77)
}

fn full_clip(pad: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("clip");
    write_clip(&folder, &clip_vocabulary(&merges()), &merges(), Some(pad));
    clip(&folder).unwrap()
}

static CLIP_L: LazyLock<Tokenizer> = LazyLock::new(|| full_clip(CLIP_END));
static CLIP_G: LazyLock<Tokenizer> = LazyLock::new(|| full_clip("!"));
static T5: LazyLock<Tokenizer> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data("t5-tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    Tokenizer::t5(&ModelFiles::Folder(folder.path().to_path_buf()), ".").unwrap()
});

#[test]
fn token_ids_equal_those_of_transformers() {
    let expected: Vec<Expected> = serde_json::from_slice(&std::fs::read(data("token-ids.json")).unwrap()).unwrap();
    assert!(expected.len() > 30);
    for Expected { prompt, clip_l, clip_g, t5 } in expected {
        for (tokenizer, ids, length) in [(&CLIP_L, clip_l, 77), (&CLIP_G, clip_g, 77), (&T5, t5, 256)] {
            let mut padded = ids;
            padded.resize(length, tokenizer.pad);
            assert_eq!(tokenizer.encode(&prompt, length).unwrap().ids, padded, "{prompt:?}");
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
        let ids = tokenizer.encode(&prompt, length).unwrap().ids;
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
    let ids = |prompt| CLIP_L.encode(prompt, 77).unwrap().ids;
    let expected = ids("a red fox in the snow");
    assert_eq!(ids("A Red FOX\tin\nthe\r\n  snow "), expected);
}

#[test]
fn special_tokens_are_matched_before_lower_casing_unless_configured_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("clip");
    write_clip(&folder, &clip_vocabulary(&merges()), &merges(), None);
    let ids = clip(&folder).unwrap().encode("a<|StartOfText|>b<|startoftext|>", 14).unwrap().ids;
    // Computed by transformers 5.24 for the same folder.
    assert_eq!(ids, [49406, 320, 27, 347, 993, 6659, 4160, 91, 285, 321, 49406, 49407, 49407, 49407]);
}

#[test]
fn a_truncated_file_of_merges_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("clip");
    let all = merges();
    write_clip(&folder, &clip_vocabulary(&all), &all, None);
    let path = folder.join("merges.txt");
    // The last one ends within the last line.
    for length in [0, 14, all.len() / 2, all.trim_end().rfind('\n').unwrap(), all.trim_end().len() - 5] {
        std::fs::write(&path, &all[..length]).unwrap();
        let error = clip(&folder).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("truncated") || error.contains("vocabulary"), "{error}");
    }
}

#[test]
fn the_truncated_part_is_returned_as_the_user_wrote_it() {
    let tokens = CLIP_L.encode("One Two THREE Four five", 5).unwrap();
    assert_eq!(tokens.truncated.as_deref().map(str::trim), Some("Four five"));
    assert_eq!(CLIP_L.encode("One Two THREE", 5).unwrap().truncated, None);
}
