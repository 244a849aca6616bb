//! Takes the images out of an answer while it arrives.
//!
//! The base64 of each `b64_json` is decoded piece by piece, still warm from the network, and never held: the peak of
//! memory is the size of the images. What remains is JSON of a few hundred bytes for serde. Base64 with escapes, spaces or
//! a prefix stays in it, and is decoded there.

use std::ops::Range;

use base64_simd::STANDARD;
use bytes::Bytes;
use memchr::{memchr, memchr_iter};

use super::lenient;

/// The field whose text is taken out.
const FIELD: &[u8] = br#""b64_json""#;

/// Characters of base64 that stand for three bytes.
const GROUP: usize = 4;

/// An answer as far as it has come.
pub(super) struct Unpack {
    /// The JSON, in which the text of an image that was taken out is empty.
    json: Vec<u8>,
    /// The images that were taken out, one behind the other.
    images: Vec<u8>,
    /// For each of them, where its text was in the JSON and where it is now.
    places: Vec<(usize, Range<usize>)>,
    /// The beginning of a group of base64 whose end has not come yet.
    group: Vec<u8>,
    /// Where the image begins whose base64 the next byte belongs to.
    image: Option<usize>,
    announced: usize,
    received: usize,
}

impl Unpack {
    /// For an answer of `announced` bytes, or 0 where the service does not say.
    pub(super) fn new(announced: usize) -> Self {
        Self {
            json: Vec::with_capacity(announced.min(1024)),
            images: Vec::new(),
            places: Vec::new(),
            group: Vec::new(),
            image: None,
            announced,
            received: 0,
        }
    }

    /// The next bytes of the answer.
    pub(super) fn push(&mut self, mut piece: &[u8]) {
        self.received += piece.len();
        while !piece.is_empty() {
            let taken = match self.image {
                None => self.json(piece),
                Some(start) => self.image(start, piece),
            };
            piece = piece.get(taken..).unwrap_or_default();
        }
    }

    /// The answer, once no more of it comes.
    pub(super) fn finish(self) -> Unpacked {
        Unpacked { json: self.json.into(), images: self.images.into(), places: self.places, received: self.received }
    }

    /// Keeps the beginning of `piece`, up to where an image may begin.
    fn json(&mut self, piece: &[u8]) -> usize {
        let may_open = |quote: &usize| {
            let before = piece.get(..*quote).and_then(<[u8]>::last);
            before.is_none_or(|before| *before == b':' || before.is_ascii_whitespace())
        };
        let taken = memchr_iter(b'"', piece).find(may_open).map_or(piece.len(), |quote| quote + 1);
        self.json.extend_from_slice(piece.get(..taken).unwrap_or_default());
        self.image = opens_image(&self.json).then_some(self.images.len());
        taken
    }

    /// Decodes the beginning of `piece`, up to the end of the image.
    fn image(&mut self, start: usize, piece: &[u8]) -> usize {
        let end = memchr(b'"', piece);
        let text = piece.get(..end.unwrap_or(piece.len())).unwrap_or_default();
        let before = self.images.len();
        if self.decode(start, text).is_none() {
            self.images.truncate(before);
            self.put_back(start);
            return 0;
        }
        if end.is_none() {
            return text.len();
        }
        if self.pad(start).is_none() || self.images.len() == start {
            self.put_back(start);
            return text.len();
        }
        self.places.push((self.json.len(), start..self.images.len()));
        self.json.push(b'"');
        self.image = None;
        text.len() + 1
    }

    /// Appends what `text` and the group before it stand for; the group stays as it was where that is nothing.
    fn decode(&mut self, start: usize, text: &[u8]) -> Option<()> {
        let missing = (GROUP - self.group.len()) % GROUP;
        let (head, text) = text.split_at(text.len().min(missing));
        let group = [&self.group, head].concat();
        if !group.len().is_multiple_of(GROUP) {
            self.group = group;
            return Some(());
        }
        let (groups, rest) = text.split_at(text.len() / GROUP * GROUP);
        self.append(start, &group)?;
        self.append(start, groups)?;
        if !rest.is_empty() && self.is_padded(start) {
            return None;
        }
        self.group = rest.to_vec();
        Some(())
    }

    /// Ends base64 that comes without its padding.
    fn pad(&mut self, start: usize) -> Option<()> {
        if self.group.is_empty() {
            return Some(());
        }
        let mut group = self.group.clone();
        group.resize(GROUP, b'=');
        self.append(start, &group)?;
        self.group.clear();
        Some(())
    }

    fn append(&mut self, start: usize, groups: &[u8]) -> Option<()> {
        if groups.is_empty() {
            return Some(());
        }
        if self.is_padded(start) {
            return None;
        }
        if self.images.capacity() == 0 {
            self.images.reserve(self.announced / GROUP * 3);
        }
        self.images.reserve(groups.len() / GROUP * 3);
        STANDARD.decode_append(groups, &mut self.images).ok()
    }

    /// Whether the image's base64 has come to its padding, behind which there is nothing.
    fn is_padded(&self, start: usize) -> bool {
        !(self.images.len() - start).is_multiple_of(3)
    }

    /// Makes the image text of the JSON again: it is not the plain base64 that it seemed to be.
    fn put_back(&mut self, start: usize) {
        self.json.reserve(self.announced);
        STANDARD.encode_append(self.images.get(start..).unwrap_or_default(), &mut self.json);
        self.images.truncate(start);
        self.json.append(&mut self.group);
        self.image = None;
    }
}

/// Whether `json` ends with the quote that opens the text of an image.
///
/// Within a text every quote has a backslash before it, so that no text can look like the field. (A name that ends in
/// `\"b64_json` can; nothing reads a field of such a name.)
fn opens_image(json: &[u8]) -> bool {
    let name = json.strip_suffix(b"\"").and_then(|json| json.trim_ascii_end().strip_suffix(b":"));
    name.is_some_and(|name| name.trim_ascii_end().ends_with(FIELD))
}

/// An answer that has come whole.
pub(super) struct Unpacked {
    /// The JSON, in which the text of an image that was taken out is empty.
    pub(super) json: Bytes,
    /// How many bytes came.
    pub(super) received: usize,
    images: Bytes,
    places: Vec<(usize, Range<usize>)>,
}

impl Unpacked {
    /// An answer out of which nothing was taken.
    pub(super) fn untouched(json: Bytes) -> Self {
        Self { received: json.len(), json, images: Bytes::new(), places: Vec::new() }
    }

    /// Puts characters in the place of broken ones. Everything stays where it is.
    pub(super) fn mend(&mut self) {
        let mut json = Vec::from(std::mem::take(&mut self.json));
        lenient::mend(&mut json);
        self.json = json.into();
    }

    /// The image whose text was taken out of the JSON where the value `raw`, a part of it, is: an empty text in quotes.
    pub(super) fn image(&self, raw: &str) -> Option<Bytes> {
        let opening = (raw.as_ptr() as usize).checked_sub(self.json.as_ptr() as usize)?;
        let at = opening.checked_add(1)?;
        let found = self.places.binary_search_by_key(&at, |(at, _)| *at).ok()?;
        let (_, range) = self.places.get(found)?;
        Some(self.images.slice(range.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpack<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Unpacked {
        let mut unpack = Unpack::new(0);
        pieces.into_iter().for_each(|piece| unpack.push(piece));
        unpack.finish()
    }

    fn json_and_images(unpacked: &Unpacked) -> (&str, Vec<&[u8]>) {
        let images = unpacked.places.iter().map(|(_, range)| &unpacked.images[range.clone()]);
        (std::str::from_utf8(&unpacked.json).unwrap(), images.collect())
    }

    #[test]
    fn plain_base64_is_taken_out() {
        let body =
            br#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json" : "d29y"},{"b64_json":"aGVsbG8"}],"type":"b64_json"}"#;
        let unpacked = unpack([&body[..]]);
        let json = r#"{"data":[{"b64_json":""},{"b64_json" : ""},{"b64_json":""}],"type":"b64_json"}"#;
        assert_eq!(json_and_images(&unpacked), (json, vec![&b"hello"[..], b"wor", b"hello"]));
        assert_eq!(unpacked.received, body.len());
    }

    #[test]
    fn all_else_stays_as_it_came() {
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
            assert_eq!(json_and_images(&unpack([body.as_bytes()])), (&*body, vec![]));
        }
    }

    proptest! {
        #[test]
        fn where_the_pieces_end_makes_no_difference(
            texts in prop::collection::vec("([A-Za-z0-9+/]{4}){0,4}([A-Z]{2}==|[A-Za-z]{3}=|[ =:,a\\\\]{1,3}|)", 0..4),
            cuts in prop::collection::vec(0..200_usize, 0..8),
        ) {
            let items: Vec<_> = texts.iter().map(|text| format!(r#"{{"b64_json":"{text}"}}"#)).collect();
            let body = format!(r#"{{"data":[{}]}}"#, items.join(","));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(body.len())).chain([0, body.len()]).collect();
            cuts.sort_unstable();
            let pieces = unpack(cuts.windows(2).map(|cut| &body.as_bytes()[cut[0]..cut[1]]));
            let whole = unpack([body.as_bytes()]);
            prop_assert_eq!(json_and_images(&pieces), json_and_images(&whole));
        }
    }
}
