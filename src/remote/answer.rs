//! The answer to a generation or an edit.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::Body;
use super::failure::{Failure, Verdict};
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
    let mut unpack = Unpack::new(body.room());
    while let Some(piece) = body.next().await? {
        unpack.push(&piece);
    }
    output(head, &unpack.finish())
}

/// No error tells any of the answer's content: it may be megabytes of image.
pub(super) fn output(head: HeaderMap, unpacked: &Unpacked) -> Result<Output, Failure> {
    let answer: Answer =
        serde_json::from_slice(&unpacked.json).map_err(|error| unreadable(&error, unpacked.received))?;
    let mut metadata = metadata(head, &answer);
    let mut images = Vec::new();
    for (index, item) in answer.data.unwrap_or_default().into_iter().enumerate() {
        let Item { url, b64_json, revised_prompt, seed } = item;
        match content(url, b64_json, unpacked) {
            Ok(None) => {}
            Ok(Some(content)) => {
                images.push(ImageData { content, revised_prompt: text(&revised_prompt), seed: seed.as_u64() });
            }
            // What else was paid for is kept.
            Err(NotBase64) => {
                metadata.warnings.push(format!("image {} is left out: it is not valid base64", index + 1))
            }
        }
    }
    if images.is_empty() {
        return Err(Failure::useless_answer(match metadata.warnings.is_empty() {
            true => "the service answered without an image",
            false => "the service answered with an image that is not valid base64",
        }));
    }
    Ok(Output { images, metadata })
}

struct NotBase64;

/// Bytes before an address: where a server sends both, the bytes need no second request.
fn content(url: Option<Text>, base64: Option<Text>, unpacked: &Unpacked) -> Result<Option<Content>, NotBase64> {
    let base64 = base64.map(|Text(base64)| match unpacked.image(&base64) {
        Some(image) => Ok(image),
        None => decode(base64),
    });
    let url = url.map(|Text(url)| url).filter(|url| !url.is_empty());
    match (base64, url) {
        (Some(Ok(image)), _) if !image.is_empty() => Ok(Some(Content::Bytes(image))),
        // Some servers put the image itself into the address.
        (_, Some(url)) if url.starts_with("data:") => Ok(Some(Content::Bytes(decode(url)?))),
        (_, Some(url)) => Ok(Some(Content::Address(url.into_owned()))),
        (Some(Err(error)), None) => Err(error),
        (Some(Ok(_)) | None, None) => Ok(None),
    }
}

/// Base64 that is not plain: in the alphabet for addresses, with a prefix that names the media type, with spaces.
fn decode(text: Cow<'_, str>) -> Result<Bytes, NotBase64> {
    let prefix = if text.starts_with("data:") { text.find(',').map_or(0, |comma| comma + 1) } else { 0 };
    let mut image = text.into_owned().into_bytes();
    image.drain(..prefix);
    for byte in &mut image {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    let length = base64_simd::forgiving_decode_inplace(&mut image).map_err(|_| NotBase64)?.len();
    image.truncate(length);
    Ok(image.into())
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

/// The JSON answer of a call that costs nothing: one that is no JSON may come whole next time.
pub(super) async fn json<T: DeserializeOwned>(_: HeaderMap, body: Body) -> Result<T, Failure> {
    let body = body.whole().await.map_err(free)?;
    serde_json::from_slice(&body).map_err(|error| {
        let Failure { error, .. } = free(unreadable(&error, body.len()));
        Failure { error, verdict: Verdict::Ambiguous }
    })
}

/// The JSON answer of a call that was billed.
pub(super) async fn paid_json<T: DeserializeOwned>(_: HeaderMap, body: Body) -> Result<T, Failure> {
    let body = body.whole().await?;
    serde_json::from_slice(&body).map_err(|error| unreadable(&error, body.len()))
}

/// The answer of a call that costs nothing and says all by succeeding. It is read so that its connection can be used again.
pub(super) async fn ignore(_: HeaderMap, body: Body) -> Result<(), Failure> {
    body.whole().await.map(drop).map_err(free)
}

/// The same failure, of a call that cannot have been billed.
fn free(Failure { error, verdict }: Failure) -> Failure {
    Failure { error: error.with_maybe_billed(false), verdict }
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
    fn an_image_that_cannot_be_read_costs_no_other() {
        let answer =
            read(br#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json":"?"},{"b64_json":"n.a.","url":"https://x/1"}]}"#);
        let Output { images, metadata } = answer.unwrap();
        let contents: Vec<_> = images.into_iter().map(|image| image.content).collect();
        assert_eq!(contents, [Content::Bytes("hello".into()), Content::Address("https://x/1".into())]);
        assert_eq!(metadata.warnings, ["image 2 is left out: it is not valid base64"]);
    }

    #[test]
    fn base64_in_the_alphabet_for_addresses_is_read() {
        assert_eq!(images(r#"{"data":[{"b64_json":"-_-_"}]}"#), [Content::Bytes([251, 255, 191][..].into())]);
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
