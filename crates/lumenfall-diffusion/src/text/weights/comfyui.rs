//! The notation of ComfyUI (`comfy/sd1_clip.py`).

use super::{GROUP, Segment, limited};

/// Brackets that are nested deeper are text.
const MAX_DEPTH: usize = 100;

pub(super) fn parse(prompt: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    add(prompt, 1.0, 0, &mut segments);
    segments
}

fn add(text: &str, weight: f64, depth: usize, segments: &mut Vec<Segment>) {
    for item in items(text) {
        let inner = item.strip_prefix('(').and_then(|item| item.strip_suffix(')'));
        match inner.filter(|inner| !inner.ends_with('\\') && depth < MAX_DEPTH) {
            Some(inner) => {
                let (inner, weight) = explicit(inner).unwrap_or((inner, weight * GROUP));
                add(inner, limited(weight), depth + 1, segments);
            }
            None => {
                let text = item.replace("\\)", ")").replace("\\(", "(");
                segments.push(Segment { text, weight: weight as f32, starts_chunk: false });
            }
        }
    }
}

/// Splits a text at its outermost brackets, which stay in the items.
fn items(text: &str) -> Vec<&str> {
    let (mut items, mut start, mut level, mut previous) = (Vec::new(), 0, 0_isize, 0);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if previous == b'\\' => {}
            b'(' => {
                if level == 0 {
                    items.extend(text.get(start..index));
                    start = index;
                }
                level += 1;
            }
            b')' => {
                level -= 1;
                if level == 0 {
                    items.extend(text.get(start..=index));
                    start = index + 1;
                }
            }
            _ => {}
        }
        previous = byte;
    }
    items.extend(text.get(start..));
    items.retain(|item| !item.is_empty());
    items
}

/// Splits the content of brackets into its text and its number, which is after the last colon.
fn explicit(inner: &str) -> Option<(&str, f64)> {
    let (text, number) = inner.rsplit_once(':').filter(|(text, _)| !text.is_empty())?;
    let number = number.trim().parse().ok().filter(|number: &f64| number.is_finite())?;
    Some((text, number))
}
