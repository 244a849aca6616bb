//! The vocabulary of CLIP.

use serde_json::{Map, Value};

/// Returns the vocabulary of CLIP with the merges of `merges.txt`: the bytes, the bytes at the end of a word, the merges, and
/// the special tokens.
pub(crate) fn clip_vocabulary(merges: &str, specials: [&str; 2]) -> Map<String, Value> {
    // As in GPT-2, a byte is its own character if that is printable, and one of the characters from U+0100 if not.
    let printable = (b'!'..=b'~').chain(0xa1..=0xac).chain(0xae..=0xff).map(char::from);
    let others = (0..68).filter_map(|i| char::from_u32(256 + i));
    let bytes: Vec<String> = printable.chain(others).map(String::from).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}</w>"));
    let merged = merges.lines().filter(|line| line.contains(' ') && !line.starts_with("#version"));
    let merged = merged.map(|line| line.replace(' ', ""));
    let all = bytes.clone().into_iter().chain(ends).chain(merged).chain(specials.map(str::to_owned));
    all.zip(0u32..).map(|(token, id)| (token, id.into())).collect()
}
