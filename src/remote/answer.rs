//! The answer to a generation or an edit.
//!
//! Base64 images are decoded in place, in the body's own buffer, and the images are slices of it: the
//! peak of memory is the size of the body.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::failure::Failure;
use super::headers;
use crate::backend::{Content, Cost, Headers, ImageData, Metadata, Output};

/// Read leniently: compatible servers leave fields out, add their own, and give some another type.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    created: Value,
    #[serde(default)]
    id: Value,
    #[serde(borrow, default)]
    data: Option<Vec<Item<'a>>>,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    url: Option<Text<'a>>,
    #[serde(borrow, default)]
    b64_json: Option<Text<'a>>,
    #[serde(default)]
    revised_prompt: Value,
    #[serde(default)]
    seed: Value,
}

/// Borrowed from the body where the text has no escapes. (Serde would always copy an `Option<Cow<str>>`.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where an image is before its base64 is decoded.
enum Place {
    Address(String),
    /// Base64 within the body.
    Within(Range<usize>),
    /// Base64 that the JSON escaped, and so had to be copied.
    Apart(Vec<u8>),
}

/// The images of `body`. No error tells any of the body's content: it may be megabytes of image.
pub(super) fn read(head: HeaderMap, mut body: Vec<u8>) -> Result<Output, Failure> {
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| unreadable(&error, &body))?;
    let metadata = metadata(head, &answer);
    let mut images = Vec::new();
    for item in answer.data.unwrap_or_default() {
        let Some(place) = place(item.url, item.b64_json, &body) else { continue };
        images.push((place, text(&item.revised_prompt), item.seed.as_u64()));
    }
    if images.is_empty() {
        return Err(Failure::useless_answer("the service answered without an image"));
    }
    for (place, ..) in &mut images {
        match place {
            Place::Address(_) => {}
            Place::Within(range) => {
                let length = decode(body.get_mut(range.clone()).unwrap_or_default())?;
                range.end = range.start + length;
            }
            Place::Apart(text) => {
                let length = decode(text)?;
                text.truncate(length);
            }
        }
    }
    let body = Bytes::from(body);
    let images = images
        .into_iter()
        .map(|(place, revised_prompt, seed)| {
            let content = match place {
                Place::Address(address) => Content::Address(address),
                Place::Within(range) => Content::Bytes(body.slice(range)),
                Place::Apart(image) => Content::Bytes(image.into()),
            };
            ImageData { content, revised_prompt, seed }
        })
        .collect();
    Ok(Output { images, metadata })
}

/// Bytes before an address: where a server sends both, the bytes need no second request.
fn place(url: Option<Text>, base64: Option<Text>, body: &[u8]) -> Option<Place> {
    let (base64, url) = (base64.filter(|text| !text.0.is_empty()), url.filter(|text| !text.0.is_empty()));
    match (base64, url) {
        (Some(Text(text)), _) => Some(place_of_base64(text, body)),
        // Some servers put the image itself into the address.
        (None, Some(Text(text))) if text.starts_with("data:") => Some(place_of_base64(text, body)),
        (None, Some(Text(text))) => Some(Place::Address(text.into_owned())),
        (None, None) => None,
    }
}

fn place_of_base64(text: Cow<'_, str>, body: &[u8]) -> Place {
    let prefix = if text.starts_with("data:") { text.find(',').map_or(0, |comma| comma + 1) } else { 0 };
    match text {
        Cow::Borrowed(text) => {
            // The text lies in the body, so its offset is the distance of the two addresses.
            let start = text.as_ptr() as usize - body.as_ptr() as usize;
            Place::Within(start + prefix..start + text.len())
        }
        Cow::Owned(text) => Place::Apart(text.into_bytes().split_off(prefix)),
    }
}

/// Decodes in place and tells how many bytes the image has.
fn decode(base64: &mut [u8]) -> Result<usize, Failure> {
    match base64_simd::forgiving_decode_inplace(base64) {
        Ok(image) if !image.is_empty() => Ok(image.len()),
        _ => Err(Failure::useless_answer("the service answered with an image that is not valid base64")),
    }
}

/// The service's headers speak where the answer has no metadata.
fn metadata(head: HeaderMap, answer: &Answer) -> Metadata {
    let field = |name: &str| answer.metadata.get(name).and_then(text);
    let header = |name| headers::text(&head, name).map(str::to_owned);
    Metadata {
        provider: field("provider").or_else(|| header(headers::PROVIDER)),
        model: field("executed_model").or_else(|| field("model")).or_else(|| header(headers::MODEL)),
        cost: answer.metadata.get("cost").and_then(number).map(|amount| Cost {
            amount,
            currency: field("cost_currency").unwrap_or_else(|| "USD".into()).to_ascii_uppercase(),
        }),
        request_id: headers::request_id(&head).map(str::to_owned).or_else(|| text(&answer.id)),
        headers: Headers::new(head),
        created: answer.created.as_u64().or_else(|| answer.created.as_f64().map(|seconds| seconds as u64)),
        ..Metadata::default()
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Some servers write amounts as text.
fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number: &f64| number.is_finite())
}

/// The JSON answer of a call that costs nothing.
pub(super) fn json<T: serde::de::DeserializeOwned>(head: HeaderMap, body: Vec<u8>) -> Result<T, Failure> {
    paid_json(head, body)
        .map_err(|Failure { error, verdict }| Failure { error: error.with_maybe_billed(false), verdict })
}

/// The JSON answer of a call that was billed.
pub(super) fn paid_json<T: serde::de::DeserializeOwned>(_: HeaderMap, body: Vec<u8>) -> Result<T, Failure> {
    serde_json::from_slice(&body).map_err(|error| unreadable(&error, &body))
}

/// Serde's own message would quote the value that it did not expect, however long.
pub(super) fn unreadable(error: &serde_json::Error, body: &[u8]) -> Failure {
    let what = match error.classify() {
        _ if body.is_empty() => "is empty".to_owned(),
        serde_json::error::Category::Eof => format!("ends too early, after {} bytes", body.len()),
        serde_json::error::Category::Data => format!("has another form than documented (column {})", error.column()),
        _ => format!("is not JSON (line {}, column {})", error.line(), error.column()),
    };
    Failure::useless_answer(format!("the service's answer {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(body: &str) -> Vec<Content> {
        read(HeaderMap::new(), body.as_bytes().to_vec())
            .unwrap()
            .images
            .into_iter()
            .map(|image| image.content)
            .collect()
    }

    #[test]
    fn images_are_slices_of_the_body() {
        let body = br#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json":"d29ybGQh"}]}"#.to_vec();
        let extent = body.as_ptr_range();
        let output = read(HeaderMap::new(), body).unwrap();
        let contents: Vec<_> = output.images.iter().map(|image| image.content.clone()).collect();
        let [Content::Bytes(first), Content::Bytes(second)] = &contents[..] else { panic!("{contents:?}") };
        assert_eq!((&first[..], &second[..]), (&b"hello"[..], &b"world!"[..]));
        assert!(extent.contains(&first.as_ptr()) && extent.contains(&second.as_ptr()));
    }

    #[test]
    fn base64_is_read_with_escapes_whitespace_data_prefix_and_without_padding() {
        for text in ["aGVsbG8=", "aGVsbG8", "aGVs\\nbG8=", "data:image/png;base64,aGVsbG8=", "aGVs\\u0062G8="] {
            let body = format!(r#"{{"data":[{{"b64_json":"{text}"}}]}}"#);
            assert_eq!(images(&body), [Content::Bytes("hello".into())], "{text}");
        }
    }

    #[test]
    fn an_image_in_the_address_is_an_image() {
        let body = r#"{"data":[{"url":"data:image/png;base64,aGVsbG8=","b64_json":null}]}"#;
        assert_eq!(images(body), [Content::Bytes("hello".into())]);
    }

    #[test]
    fn unknown_fields_and_odd_types_do_not_fail_a_paid_answer() {
        let body = r#"{"created":"yesterday","size":7,"quality":"new","usage":null,"metadata":[],
            "data":[{"url":"https://x/1","revised_prompt":["?"]},{"new":true},{"url":"https://x/2"}]}"#;
        assert_eq!(images(body), [Content::Address("https://x/1".into()), Content::Address("https://x/2".into())]);
    }

    #[test]
    fn no_answer_panics_however_it_is_cut_or_changed() {
        let body = br#"{"created":1,"data":[{"url":"data:image/png;base64,aGVsbG8=","seed":1},{"b64_json":"d29y\u0062GQh"},
            {"b64_json":"aGVsbG8=","url":"https://x/1","revised_prompt":"a"}],"metadata":{"cost":"0.1","provider":"fal"}}"#;
        for end in 0..=body.len() {
            let _ = read(HeaderMap::new(), body[..end].to_vec());
        }
        for at in 0..body.len() {
            for byte in [0, b'"', b'\\', b',', b'{', b']', b'=', b' ', b'0', 0x80, 0xFF] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                let _ = read(HeaderMap::new(), changed);
            }
        }
    }

    #[test]
    fn no_message_holds_the_body() {
        let image = "QUJD".repeat(1000);
        for body in [
            format!(r#"{{"data":"{image}"}}"#),
            format!(r#"{{"data":[{{"b64_json":"{image}!"}}]}}"#),
            format!(r#"{{"data":[{{"b64_json":"{image}"#),
            image.clone(),
        ] {
            let error = read(HeaderMap::new(), body.into_bytes()).unwrap_err().error;
            assert!(!format!("{error} {error:?}").contains("QUJD"), "{error}");
            assert!(error.maybe_billed());
        }
    }
}
