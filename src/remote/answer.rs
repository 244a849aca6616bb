//! The answer to a generation or an edit.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::Body;
use super::failure::Failure;
use super::headers;
use super::unpack::{Unpack, Unpacked};
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

/// The images that the body holds.
pub(super) async fn read(head: HeaderMap, mut body: Body) -> Result<Output, Failure> {
    let mut unpack = Unpack::new(body.announced);
    while let Some(piece) = body.next().await? {
        unpack.push(&piece);
    }
    output(head, &unpack.finish())
}

/// No error tells any of the answer's content: it may be megabytes of image.
pub(super) fn output(head: HeaderMap, unpacked: &Unpacked) -> Result<Output, Failure> {
    let answer: Answer =
        serde_json::from_slice(&unpacked.json).map_err(|error| unreadable(&error, unpacked.received))?;
    let metadata = metadata(head, &answer);
    let mut images = Vec::new();
    for Item { url, b64_json, revised_prompt, seed } in answer.data.unwrap_or_default() {
        let Some(content) = content(url, b64_json, unpacked)? else { continue };
        images.push(ImageData { content, revised_prompt: text(&revised_prompt), seed: seed.as_u64() });
    }
    if images.is_empty() {
        return Err(Failure::useless_answer("the service answered without an image"));
    }
    Ok(Output { images, metadata })
}

/// Bytes before an address: where a server sends both, the bytes need no second request.
fn content(url: Option<Text>, base64: Option<Text>, unpacked: &Unpacked) -> Result<Option<Content>, Failure> {
    if let Some(Text(base64)) = base64 {
        if let Some(image) = unpacked.image(&base64) {
            return Ok(Some(Content::Bytes(image)));
        }
        if !base64.is_empty() {
            return Ok(Some(Content::Bytes(decode(&base64)?)));
        }
    }
    Ok(match url {
        Some(Text(url)) if url.is_empty() => None,
        // Some servers put the image itself into the address.
        Some(Text(url)) if url.starts_with("data:") => Some(Content::Bytes(decode(&url)?)),
        Some(Text(url)) => Some(Content::Address(url.into_owned())),
        None => None,
    })
}

/// Base64 that is not plain: with a prefix that names the media type, with spaces, without padding.
fn decode(text: &str) -> Result<Bytes, Failure> {
    let base64 = text.strip_prefix("data:").and_then(|text| text.split_once(',')).map_or(text, |(_, base64)| base64);
    match base64_simd::forgiving_decode_to_vec(base64.as_bytes()) {
        Ok(image) if !image.is_empty() => Ok(image.into()),
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
pub(super) async fn json<T: DeserializeOwned>(head: HeaderMap, body: Body) -> Result<T, Failure> {
    paid_json(head, body)
        .await
        .map_err(|Failure { error, verdict }| Failure { error: error.with_maybe_billed(false), verdict })
}

/// The JSON answer of a call that was billed.
pub(super) async fn paid_json<T: DeserializeOwned>(_: HeaderMap, body: Body) -> Result<T, Failure> {
    let body = body.whole().await?;
    serde_json::from_slice(&body).map_err(|error| unreadable(&error, body.len()))
}

/// The answer of a call that says all by succeeding. It is read so that its connection can be used again.
pub(super) async fn ignore(_: HeaderMap, body: Body) -> Result<(), Failure> {
    body.whole().await.map(drop)
}

/// Serde's own message would quote the value that it did not expect, however long.
fn unreadable(error: &serde_json::Error, received: usize) -> Failure {
    let what = match error.classify() {
        _ if received == 0 => "is empty".to_owned(),
        serde_json::error::Category::Eof => format!("ends too early, after {received} bytes"),
        serde_json::error::Category::Data => "has another form than documented".to_owned(),
        _ => "is not JSON".to_owned(),
    };
    Failure::useless_answer(format!("the service's answer {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Output, Failure> {
        let mut unpack = Unpack::new(body.len());
        unpack.push(body);
        output(HeaderMap::new(), &unpack.finish())
    }

    fn images(body: &str) -> Vec<Content> {
        read(body.as_bytes()).unwrap().images.into_iter().map(|image| image.content).collect()
    }

    #[test]
    fn images_share_one_buffer() {
        let contents = images(r#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json":""},{"b64_json":"d29ybGQh"}]}"#);
        let [Content::Bytes(first), Content::Bytes(second)] = &contents[..] else { panic!("{contents:?}") };
        assert_eq!((&first[..], &second[..]), (&b"hello"[..], &b"world!"[..]));
        assert_eq!(first.as_ptr_range().end, second.as_ptr());
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
            let _ = read(&body[..end]);
        }
        for at in 0..body.len() {
            for byte in [0, b'"', b'\\', b',', b'{', b']', b'=', b' ', b'0', 0x80, 0xFF] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                let _ = read(&changed);
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
            let error = read(body.as_bytes()).unwrap_err().error;
            assert!(!format!("{error} {error:?}").contains("QUJD"), "{error}");
            assert!(error.maybe_billed());
        }
    }
}
