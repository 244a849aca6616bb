//! Parsing of JSON that deviates from the standard.
//!
//! A response may have been paid for and cannot be requested again. So everything that can be read is read, whatever is
//! wrong with the rest.

use serde::Deserialize;
use serde_json::{Deserializer, Value};

/// Parses `json`. If it is malformed or truncated, returns the error and what precedes it.
pub(crate) fn parse(mut json: Vec<u8>) -> (Value, Option<serde_json::Error>) {
    if json.starts_with(b"\xEF\xBB\xBF") {
        json.drain(..3);
    }
    // Almost all responses are valid, and the repairs do not change what is valid.
    if let Ok(value) = first_value(&json) {
        return (value, None);
    }
    repair_characters(&mut json);
    repair_tokens(&mut json);
    match first_value(&json) {
        Ok(value) => (value, None),
        Err(error) => {
            // The repaired text is a single line, so the column is the position of the error.
            let end = if error.is_eof() { json.len() } else { error.column().saturating_sub(1).min(json.len()) };
            json.truncate(end);
            close(&mut json);
            (first_value(&json).unwrap_or_default(), Some(error))
        }
    }
}

/// Parses the value that `json` starts with. Some servers append other text.
fn first_value(json: &[u8]) -> serde_json::Result<Value> {
    Value::deserialize(&mut Deserializer::from_slice(json))
}

/// Replaces bytes that are not UTF-8 by question marks, and control characters by spaces.
fn repair_characters(json: &mut [u8]) {
    let mut rest = &mut *json;
    while let Err(error) = std::str::from_utf8(rest) {
        let start = error.valid_up_to();
        let end = error.error_len().map_or(rest.len(), |length| start + length);
        let (invalid, valid) = rest.split_at_mut(end);
        invalid.iter_mut().skip(start).for_each(|byte| *byte = b'?');
        rest = valid;
    }
    json.iter_mut().filter(|byte| **byte < b' ').for_each(|byte| *byte = b' ');
}

/// Non-finite numbers as Python writes them.
const NOT_FINITE: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Replaces numbers that are not finite by empty strings, and unpaired surrogates by the replacement character.
fn repair_tokens(mut json: &mut [u8]) {
    let mut in_string = false;
    while let Some(byte) = json.first() {
        let mut length = 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => length = repair_escape(json),
            _ if in_string => {}
            _ => {
                if let Some(number) = NOT_FINITE.iter().find(|number| json.starts_with(number)) {
                    length = number.len();
                    let empty = b"\"\"".iter().copied().chain(std::iter::repeat(b' '));
                    json.iter_mut().take(length).zip(empty).for_each(|(byte, new)| *byte = new);
                }
            }
        }
        json = json.get_mut(length..).unwrap_or_default();
    }
}

/// Repairs the escape sequence that `json` starts with, and returns its length.
fn repair_escape(json: &mut [u8]) -> usize {
    let unit = |text: Option<&[u8]>| {
        let digits = std::str::from_utf8(text?.strip_prefix(b"\\u")?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(json.get(..6)), unit(json.get(6..12))) {
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
        (Some(0xD800..=0xDFFF), _) => {
            json.iter_mut().skip(2).zip(b"fffd").for_each(|(byte, new)| *byte = *new);
            6
        }
        _ => 2,
    }
}

/// Cuts `json` after its last complete value, and closes the objects and arrays that are open there.
fn close(json: &mut Vec<u8>) {
    let mut open = Vec::new();
    let mut end = 0;
    let mut previous = b' ';
    // Whether the current string, if any, is a value and not a name.
    let mut string = None;
    let mut escaped = false;
    for (position, &byte) in json.iter().enumerate() {
        match (byte, string) {
            (_, Some(_)) if escaped => escaped = false,
            (b'\\', Some(_)) => escaped = true,
            (b'"', Some(is_value)) => {
                string = None;
                if is_value {
                    end = position + 1;
                }
            }
            (_, Some(_)) => {}
            (b'"', None) => string = Some(previous == b':' || open.last() == Some(&b']')),
            (b'{' | b'[', None) => {
                open.push(if byte == b'{' { b'}' } else { b']' });
                end = position + 1;
            }
            (b'}' | b']', None) => {
                open.pop();
                end = position + 1;
            }
            (b',', None) => end = position,
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            previous = byte;
        }
    }
    json.truncate(end);
    json.extend(open.iter().rev());
}

/// Returns the field `name` if it is a string that is not empty.
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// Returns a finite number. Some servers write amounts as strings.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number: &f64| number.is_finite())
}

/// Returns the field `name` if it is a non-negative integer. Some servers write it with a fraction.
pub(crate) fn integer(object: &Value, name: &str) -> Option<u64> {
    let value = object.get(name)?;
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
}

/// Returns the items of the array `name`; none if there is no such array.
pub(crate) fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nonstandard_json_is_read() {
        for (text, value) in [
            ("\u{feff}{\"a\":1}", json!({ "a": 1 })),
            ("{\"a\":\"x\ty\0\"}", json!({ "a": "x y " })),
            (r#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN"}"#, json!({ "a": "", "b": ["", ""], "c": "NaN" })),
            (
                r#"{"a":"\ud83d","b":"\ud83d\ude00","c":"\\ud83d"}"#,
                json!({ "a": "\u{fffd}", "b": "😀", "c": "\\ud83d" }),
            ),
            (r#"{"a":1,"a":2} <!-- proxy -->"#, json!({ "a": 2 })),
        ] {
            let (read, error) = parse(text.into());
            assert_eq!((read, error.is_none()), (value, true), "{text}");
        }
        assert_eq!(parse(b"{\"a\":\"\xF0\x9F\"}".to_vec()).0, json!({ "a": "??" }));
    }

    #[test]
    fn truncated_json_is_read_up_to_its_last_complete_value() {
        let whole = r#"{"a":{"b":"c"},"data":[{"url":"x\"","n":12},{"url":"y"}]}"#;
        let at = |text| whole.find(text).unwrap();
        for (end, value) in [
            (0, Value::Null),
            (1, json!({})),
            (at("c"), json!({ "a": {} })),
            (at(",\"data"), json!({ "a": { "b": "c" } })),
            (at("x"), json!({ "a": { "b": "c" }, "data": [{}] })),
            (at(",\"n\""), json!({ "a": { "b": "c" }, "data": [{ "url": "x\"" }] })),
            (at("2}"), json!({ "a": { "b": "c" }, "data": [{ "url": "x\"" }] })),
            (at(",{\"url\""), json!({ "a": { "b": "c" }, "data": [{ "url": "x\"", "n": 12 }] })),
            (whole.len() - 1, serde_json::from_str(whole).unwrap()),
        ] {
            let (read, error) = parse(whole[..end].into());
            assert_eq!((read, error.is_some()), (value, true), "{}", &whole[..end]);
        }
    }

    #[test]
    fn a_syntax_error_loses_nothing_that_precedes_it() {
        let (read, error) = parse(br#"{"data":[{"url":"x"},{"n":1e999}],"b":"#.to_vec());
        assert_eq!((read, error.is_some()), (json!({ "data": [{ "url": "x" }, {}] }), true));
    }
}
