//! Extraction of base64 images from a response while it is received.
//!
//! The base64 of each `b64_json` is decoded chunk by chunk and never stored, so the peak memory is the size of the images.
//! What remains is a short JSON text. Base64 with escapes, whitespace, a prefix or another alphabet stays in the JSON text
//! and is decoded later.

use base64_simd::STANDARD;
use bytes::Bytes;
use memchr::{memchr, memchr_iter};

/// The name of the field that holds an image.
const FIELD: &[u8] = br#""b64_json""#;

/// The number of base64 characters that encode three bytes.
const GROUP: usize = 4;

/// Separates the images from the JSON text of a response.
pub(crate) struct Base64Extractor {
    /// The JSON text, with a reference in place of each extracted image.
    json: Vec<u8>,
    /// The extracted images, one after the other.
    images: Vec<u8>,
    /// The end of each image in `images`.
    ends: Vec<usize>,
    /// The start of a group of base64 characters that is not complete yet.
    group: Vec<u8>,
    /// Whether the next byte belongs to an image.
    in_image: bool,
    capacity: usize,
    received: usize,
}

/// A response with its images extracted.
pub(crate) struct Extracted {
    /// The JSON text, with a [`reference`] in place of each image.
    pub(crate) json: Vec<u8>,
    pub(crate) images: Vec<Bytes>,
    /// The size of the response in bytes.
    pub(crate) received: usize,
}

impl Extracted {
    /// Returns the image that `text` refers to.
    pub(crate) fn image(&self, text: &str) -> Option<Bytes> {
        self.images.get(text.strip_prefix('#')?.parse::<usize>().ok()?).cloned()
    }
}

/// Returns the text that replaces image number `index`. It is not valid base64, so it cannot be confused with an image.
pub(crate) fn reference(index: usize) -> String {
    format!("#{index}")
}

impl Base64Extractor {
    /// Expects a response of `capacity` bytes; 0 if its length is unknown.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            json: Vec::new(),
            images: Vec::new(),
            ends: Vec::new(),
            group: Vec::new(),
            in_image: false,
            capacity,
            received: 0,
        }
    }

    /// Adds the next chunk of the response.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) {
        self.received += chunk.len();
        while !chunk.is_empty() {
            let consumed = if self.in_image { self.push_image(chunk) } else { self.push_json(chunk) };
            chunk = chunk.get(consumed..).unwrap_or_default();
        }
    }

    /// Ends the response.
    pub(crate) fn finish(mut self) -> Extracted {
        if self.in_image {
            self.images.truncate(self.start());
        }
        let mut rest = Bytes::from(self.images);
        let mut start = 0;
        let mut image = |end: usize| {
            let image = rest.split_to(end - start);
            start = end;
            image
        };
        Extracted {
            json: self.json,
            images: self.ends.iter().map(|end| image(*end)).collect(),
            received: self.received,
        }
    }

    /// The start of the current image in `images`.
    fn start(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Copies JSON up to the quote that may open an image, and returns the number of consumed bytes.
    fn push_json(&mut self, chunk: &[u8]) -> usize {
        let may_open = |quote: &usize| {
            let before = chunk.get(..*quote).and_then(<[u8]>::last);
            before.is_none_or(|before| *before == b':' || before.is_ascii_whitespace())
        };
        let consumed = memchr_iter(b'"', chunk).find(may_open).map_or(chunk.len(), |quote| quote + 1);
        self.json.extend_from_slice(chunk.get(..consumed).unwrap_or_default());
        self.in_image = opens_image(&self.json);
        consumed
    }

    /// Decodes base64 up to the end of the image, and returns the number of consumed bytes.
    fn push_image(&mut self, chunk: &[u8]) -> usize {
        let end = memchr(b'"', chunk);
        let text = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let decoded = self.images.len();
        if self.decode(text).is_none() {
            self.images.truncate(decoded);
            self.restore();
            return 0;
        }
        if end.is_none() {
            return text.len();
        }
        if self.pad().is_none() || self.images.len() == self.start() {
            self.restore();
            return text.len();
        }
        self.json.extend_from_slice(reference(self.ends.len()).as_bytes());
        self.json.push(b'"');
        self.ends.push(self.images.len());
        self.in_image = false;
        text.len() + 1
    }

    /// Decodes the incomplete group and `text`. Leaves the group unchanged if that fails.
    fn decode(&mut self, text: &[u8]) -> Option<()> {
        let missing = (GROUP - self.group.len()) % GROUP;
        let (head, text) = text.split_at(text.len().min(missing));
        let group = [&self.group, head].concat();
        if !group.len().is_multiple_of(GROUP) {
            self.group = group;
            return Some(());
        }
        let (groups, rest) = text.split_at(text.len() / GROUP * GROUP);
        self.append(&group)?;
        self.append(groups)?;
        if !rest.is_empty() && self.is_padded() {
            return None;
        }
        self.group = rest.to_vec();
        Some(())
    }

    /// Completes base64 without padding.
    fn pad(&mut self) -> Option<()> {
        let mut group = self.group.clone();
        if !group.is_empty() {
            group.resize(GROUP, b'=');
        }
        self.append(&group)?;
        self.group.clear();
        Some(())
    }

    fn append(&mut self, groups: &[u8]) -> Option<()> {
        if groups.is_empty() {
            return Some(());
        }
        if self.is_padded() {
            return None;
        }
        if self.images.capacity() == 0 {
            self.images.reserve(self.capacity / GROUP * 3);
        }
        self.images.reserve(groups.len() / GROUP * 3);
        STANDARD.decode_append(groups, &mut self.images).ok()
    }

    /// Whether the padding of the current image was decoded. Nothing may follow it.
    fn is_padded(&self) -> bool {
        !(self.images.len() - self.start()).is_multiple_of(3)
    }

    /// Moves the current image back into the JSON text, because it is not plain base64.
    fn restore(&mut self) {
        let start = self.start();
        self.json.reserve(self.capacity);
        STANDARD.encode_append(self.images.get(start..).unwrap_or_default(), &mut self.json);
        self.images.truncate(start);
        self.json.append(&mut self.group);
        self.in_image = false;
    }
}

/// Whether `json` ends with the quote that opens an image.
///
/// Inside a string each quote follows a backslash, so no text can look like the field. (A field name that ends in
/// `\"b64_json` can, but no field of such a name is read.)
fn opens_image(json: &[u8]) -> bool {
    let name = json.strip_suffix(b"\"").and_then(|json| json.trim_ascii_end().strip_suffix(b":"));
    name.is_some_and(|name| name.trim_ascii_end().ends_with(FIELD))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extract<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (String, Vec<Bytes>, usize) {
        let mut extractor = Base64Extractor::new(0);
        chunks.into_iter().for_each(|chunk| extractor.push(chunk));
        let Extracted { json, images, received } = extractor.finish();
        (String::from_utf8(json).unwrap(), images, received)
    }

    #[test]
    fn plain_base64_is_extracted() {
        let body =
            br#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json" : "d29y"},{"b64_json":"aGVsbG8"}],"type":"b64_json"}"#;
        let json = r##"{"data":[{"b64_json":"#0"},{"b64_json" : "#1"},{"b64_json":"#2"}],"type":"b64_json"}"##;
        let images = [&b"hello"[..], b"wor", b"hello"].map(Bytes::from_static);
        assert_eq!(extract([&body[..]]), (json.to_owned(), images.to_vec(), body.len()));
    }

    #[test]
    fn other_text_is_not_changed() {
        for text in [
            "",
            "a",
            "aGVsbG9",
            "aGVs bG8=",
            "aGVs\\nbG8=",
            "aGVs\\/bG8=",
            "aGVsbG8=\\\"",
            "aGVsbG8=aGVs",
            "aGVsbG8=a",
            "aGVsbG8==",
            "====",
            "data:image/png;base64,aGVsbG8=",
            "aGVs-_-_",
            "aGVsbG9=",
        ] {
            let body = format!(r#"{{"b64_json":"{text}","other":"aGVs"}}"#);
            assert_eq!(extract([body.as_bytes()]), (body.clone(), vec![], body.len()));
        }
    }

    proptest! {
        #[test]
        fn chunk_boundaries_make_no_difference(
            texts in prop::collection::vec("([A-Za-z0-9+/]{4}){0,4}([A-Z]{2}==|[A-Za-z]{3}=|[ =:,a\\\\]{1,3}|)", 0..4),
            cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let items: Vec<_> = texts.iter().map(|text| format!(r#"{{"b64_json":"{text}"}}"#)).collect();
            let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).chain([0, body.len()]).collect();
            cuts.sort_unstable();
            let chunked = extract(cuts.windows(2).map(|cut| &body.as_bytes()[cut[0]..cut[1]]));
            prop_assert_eq!(chunked, extract([body.as_bytes()]));
        }
    }
}
