//! The notation of AUTOMATIC1111's web interface (`modules/prompt_parser.py`).

use super::{GROUP, Segment, limited};

/// The number of open brackets after which further ones are text. Each multiplies the weights of all parts within it.
const MAX_DEPTH: usize = 1000;

/// The length of the longest number that can be a weight.
const MAX_NUMBER: usize = 64;

/// The word that starts a new chunk.
const BREAK: &str = "BREAK";

/// A part of the prompt with the product of the weights of all brackets that have been closed around it.
struct Part {
    text: String,
    weight: f64,
    starts_chunk: bool,
}

pub(super) fn parse(prompt: &str) -> Vec<Segment> {
    let mut parts: Vec<Part> = Vec::new();
    // The number of parts before each open bracket.
    let (mut round, mut square) = (Vec::new(), Vec::new());
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        let special = |c: char| matches!(c, '\\' | '(' | ')' | '[' | ']' | ':');
        rest = match first {
            '\\' => {
                // A backslash before another character is left out.
                let escaped = after.chars().next().filter(|c| special(*c) && *c != ':');
                parts.push(Part::new(escaped.map(String::from).unwrap_or_default()));
                after.get(escaped.map_or(0, char::len_utf8)..).unwrap_or_default()
            }
            '(' if round.len() < MAX_DEPTH => {
                round.push(parts.len());
                after
            }
            '[' if square.len() < MAX_DEPTH => {
                square.push(parts.len());
                after
            }
            ')' if !round.is_empty() => {
                multiply(&mut parts, round.pop(), GROUP);
                after
            }
            ']' if !square.is_empty() => {
                multiply(&mut parts, square.pop(), 1.0 / GROUP);
                after
            }
            ':' => match closing(after).filter(|_| !round.is_empty()) {
                Some((weight, after)) => {
                    multiply(&mut parts, round.pop(), weight);
                    after
                }
                None => {
                    parts.push(Part::new(first.into()));
                    after
                }
            },
            _ => {
                // A bracket that closes nothing is text.
                let end = if special(first) { 1 } else { rest.find(special).unwrap_or(rest.len()) };
                let (text, after) = rest.split_at(end);
                let texts = split_at_breaks(text).into_iter().map(str::to_owned).enumerate();
                parts.extend(texts.map(|(index, text)| Part { starts_chunk: index > 0, ..Part::new(text) }));
                after
            }
        };
    }
    round.into_iter().for_each(|start| multiply(&mut parts, Some(start), GROUP));
    square.into_iter().for_each(|start| multiply(&mut parts, Some(start), 1.0 / GROUP));
    merge(parts)
}

impl Part {
    fn new(text: String) -> Self {
        Self { text, weight: 1.0, starts_chunk: false }
    }
}

/// Multiplies the weights of the parts from `start`.
fn multiply(parts: &mut [Part], start: Option<usize>, factor: f64) {
    for part in parts.iter_mut().skip(start.unwrap_or(usize::MAX)) {
        part.weight = limited(part.weight * factor);
    }
}

/// Splits `1.2) text` into the number and the text.
fn closing(text: &str) -> Option<(f64, &str)> {
    let end = text.bytes().take(MAX_NUMBER).position(|byte| byte == b')')?;
    let (number, after) = (text.get(..end)?, text.get(end + 1..)?);
    let number = number.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    // Other forms of numbers, such as 1e3 or NaN, are text.
    let is_decimal = digits.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    Some((limited(number.parse().ok().filter(|_| is_decimal)?), after))
}

/// Splits a text at each `BREAK`, and removes the whitespace around it.
fn split_at_breaks(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut parts, mut start) = (Vec::new(), 0);
    for (index, _) in text.match_indices(BREAK) {
        let (before, after) = text.split_at(index);
        let after = after.get(BREAK.len()..).unwrap_or_default();
        if !before.ends_with(is_word) && !after.starts_with(is_word) {
            parts.extend(text.get(start..index));
            start = index + BREAK.len();
        }
    }
    parts.extend(text.get(start..));
    let last = parts.len() - 1;
    for (index, part) in parts.iter_mut().enumerate() {
        *part = if index > 0 { part.trim_start() } else { part };
        *part = if index < last { part.trim_end() } else { part };
    }
    parts
}

/// Joins neighbours with the same weight.
fn merge(parts: Vec<Part>) -> Vec<Segment> {
    let mut merged: Vec<Part> = Vec::new();
    for part in parts {
        match merged.last_mut().filter(|last| !part.starts_chunk && last.weight == part.weight) {
            Some(last) => last.text += &part.text,
            None => merged.push(part),
        }
    }
    let segment = |Part { text, weight, starts_chunk }| Segment { text, weight: weight as f32, starts_chunk };
    merged.into_iter().map(segment).collect()
}
