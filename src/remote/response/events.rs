//! Responses that are streams of server-sent events: partial images, then one event for each image.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::base64_stream::{Base64Extractor, Extracted, reference};
use super::lenient;
use crate::backend::{Content, Progress};

/// The field name of a line that contains data.
const DATA: &[u8] = b"data:";

/// Collects the events of a response into one response.
pub(crate) struct Events {
    /// The data of the current event.
    data: Base64Extractor,
    /// The start of the current line, until its field name is known.
    name: Vec<u8>,
    line: Line,
    /// The fields of all events.
    fields: Map<String, Value>,
    /// The items with images, as in the `data` of a response that is not a stream.
    items: Vec<Value>,
    images: Vec<Bytes>,
    received: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    Data,
    /// Another field, or a comment that keeps the connection open.
    Other,
}

/// Whether a response is a stream of events, by its media type and its first bytes.
pub(crate) fn is_stream(media_type: Option<&str>, start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let is_declared = media_type.is_some_and(|media_type| media_type.trim_start().starts_with("text/event-stream"));
    match is_declared {
        // Some servers send errors as JSON under the media type of a stream.
        true => !start.starts_with(b"{"),
        false => start.starts_with(DATA) || start.starts_with(b"event:"),
    }
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            data: Base64Extractor::new(0),
            name: Vec::new(),
            line: Line::Start,
            fields: Map::new(),
            items: Vec::new(),
            images: Vec::new(),
            received: 0,
        }
    }

    /// Adds the next chunk of the response. Partial images are passed to `report`.
    pub(crate) fn push(&mut self, chunk: &[u8], report: &impl Fn(Progress)) {
        self.received += chunk.len();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let line = part.strip_suffix(b"\n");
            let text = self.read_name(line.unwrap_or(part));
            if self.line == Line::Data {
                self.data.push(text);
            }
            if line.is_some() {
                self.end_line(report);
            }
        }
    }

    /// Ends the response.
    pub(crate) fn finish(mut self, report: &impl Fn(Progress)) -> Extracted {
        // The last event may have no empty line after it, or be truncated.
        self.end_event(report);
        let Self { mut fields, items, images, received, .. } = self;
        fields.insert("data".into(), items.into());
        Extracted { json: Value::Object(fields).to_string().into_bytes(), images, received }
    }

    /// Reads the field name at the start of a line, and returns the rest.
    fn read_name<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        if self.line != Line::Start {
            return text;
        }
        let (name, rest) = text.split_at(text.len().min(DATA.len() - self.name.len()));
        self.name.extend_from_slice(name);
        if self.name.len() == DATA.len() {
            self.line = if self.name == DATA { Line::Data } else { Line::Other };
        }
        rest
    }

    fn end_line(&mut self, report: &impl Fn(Progress)) {
        if self.line == Line::Start && self.name.trim_ascii().is_empty() {
            self.end_event(report);
        }
        self.name.clear();
        self.line = Line::Start;
    }

    fn end_event(&mut self, report: &impl Fn(Progress)) {
        let mut event = std::mem::replace(&mut self.data, Base64Extractor::new(0)).finish();
        // The end of the stream is the text `[DONE]`.
        let (Value::Object(fields), _) = lenient::parse(std::mem::take(&mut event.json)) else { return };
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind.contains("partial") {
            report_partial(&fields, &event, report);
            return;
        }
        let items = match fields.get("data") {
            Some(Value::Array(items)) => items.clone(),
            Some(item @ Value::Object(_)) => vec![item.clone()],
            _ if ["b64_json", "url"].iter().any(|name| fields.contains_key(*name)) => vec![fields.clone().into()],
            _ => Vec::new(),
        };
        self.items.extend(items.into_iter().map(|item| with_image(item, &event, &mut self.images)));
        let is_image = |name: &str| ["data", "b64_json", "url", "type"].contains(&name);
        self.fields.extend(fields.into_iter().filter(|(name, _)| !is_image(name)));
    }
}

/// Moves the image of an item of `event` to `images`.
fn with_image(mut item: Value, event: &Extracted, images: &mut Vec<Bytes>) -> Value {
    let image = lenient::text(&item, "b64_json").and_then(|text| event.image(text));
    if let (Some(image), Some(fields)) = (image, item.as_object_mut()) {
        fields.insert("b64_json".into(), reference(images.len()).into());
        images.push(image);
    }
    item
}

fn report_partial(fields: &Map<String, Value>, event: &Extracted, report: &impl Fn(Progress)) {
    let image = fields.get("b64_json").and_then(Value::as_str).and_then(|text| event.image(text));
    let index = fields.get("partial_image_index").and_then(Value::as_u64).unwrap_or(0);
    if let Some(image) = image {
        report(Progress::PartialImage { index: index.try_into().unwrap_or(u32::MAX), content: Content::Bytes(image) });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn read(stream: &str, chunk: usize) -> (Value, Vec<Bytes>, Vec<Progress>) {
        let reported = RefCell::new(Vec::new());
        let report = |progress| reported.borrow_mut().push(progress);
        let mut events = Events::new();
        stream.as_bytes().chunks(chunk).for_each(|chunk| events.push(chunk, &report));
        let Extracted { json, images, received } = events.finish(&report);
        assert_eq!(received, stream.len());
        (serde_json::from_slice(&json).unwrap(), images, reported.into_inner())
    }

    #[test]
    fn images_and_partial_images_are_read_from_chunks_of_any_size() {
        let stream = concat!(
            ": keep-alive\r\n\r\n",
            "event: image_generation.partial_image\r\n",
            r#"data: {"type":"image_generation.partial_image","b64_json":"cGFydA==","partial_image_index":1}"#,
            "\r\n\r\n",
            r#"data:{"type":"image_generation.completed","b64_json":"aGVsbG8=","usage":{"total_tokens":7}}"#,
            "\n\n",
            "id: 3\ndata: {\"type\":\"image_generation.completed\",\ndata: \"b64_json\":\"d29ybGQh\"}\n\n",
            "data: [DONE]\n\n",
        );
        for chunk in [1, 2, 7, stream.len()] {
            let (body, images, reported) = read(stream, chunk);
            assert_eq!((images[0].as_ref(), images[1].as_ref(), images.len()), (&b"hello"[..], &b"world!"[..], 2));
            let kind = "image_generation.completed";
            let usage = json!({ "total_tokens": 7 });
            let data = json!([
                { "b64_json": "#0", "type": kind, "usage": usage },
                { "b64_json": "#1", "type": kind },
            ]);
            assert_eq!(body, json!({ "usage": usage, "data": data }));
            assert_eq!(reported, [Progress::PartialImage { index: 1, content: Content::Bytes("part".into()) }]);
        }
    }

    #[test]
    fn other_events_are_read_and_the_last_one_may_be_incomplete() {
        for (stream, expected) in [
            ("data: {\"error\":{\"message\":\"no GPU\"}}", json!({ "error": { "message": "no GPU" }, "data": [] })),
            (
                "event: complete\ndata: {\"created\":1,\"data\":[{\"url\":\"https://x/1\"}]}\n",
                json!({ "created": 1, "data": [{ "url": "https://x/1" }] }),
            ),
            ("data: {\"b64_json\":\"aGVs", json!({ "data": [] })),
            ("event: ping\n\nretry: 10\n\n", json!({ "data": [] })),
        ] {
            assert_eq!(read(stream, 3).0, expected, "{stream}");
        }
    }

    #[test]
    fn a_stream_is_recognized() {
        assert!(is_stream(Some("text/event-stream; charset=utf-8"), b": wait"));
        assert!(is_stream(None, b"\ndata: {}") && is_stream(Some("text/plain"), b"event: x"));
        assert!(!is_stream(Some("text/event-stream"), b" {\"error\":1}"));
        assert!(!is_stream(Some("application/json"), b"{}") && !is_stream(None, b"error"));
    }
}
