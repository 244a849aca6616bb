//! The answer to a generation or an edit.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::Body;
use super::failure::Failure;
use super::headers::Said;
use super::json;
use super::key::Secrets;
use super::lenient::{self, Object};
use super::unpack::{Unpack, Unpacked};
use crate::backend::{BoxFuture, Content, Cost, Headers, ImageData, Metadata, Output};
use crate::images::OutputFormat;

/// An answer in the documented form.
#[derive(Default, Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    data: Vec<Item<'a>>,
    #[serde(default)]
    size: Option<String>,
    #[serde(default)]
    output_format: Option<OutputFormat>,
    #[serde(default)]
    metadata: Value,
}

#[derive(Default, Deserialize)]
struct Item<'a> {
    #[serde(default)]
    url: Option<String>,
    /// Where an image was taken out, its place tells which one.
    #[serde(borrow, default)]
    b64_json: Option<&'a RawValue>,
    #[serde(default)]
    revised_prompt: Option<String>,
    #[serde(default)]
    seed: Option<u64>,
}

impl<'a> Answer<'a> {
    /// What can be read of an answer in another form.
    fn of(answer: &Object<'a>) -> Self {
        // Where there is one image, some servers make no list.
        let data = answer.field("data");
        let items = answer.read_as::<Vec<&RawValue>>("data").unwrap_or_else(|| Vec::from_iter(data));
        Self {
            created: answer
                .read_as("created")
                .or_else(|| answer.read_as::<f64>("created").map(|seconds| seconds as u64)),
            id: answer.text("id"),
            data: items.into_iter().map(|item| Item::of(&lenient::read_as(item).unwrap_or_default())).collect(),
            size: answer.text("size"),
            output_format: answer.read_as("output_format"),
            metadata: answer.read_as("metadata").unwrap_or_default(),
        }
    }
}

impl<'a> Item<'a> {
    fn of(item: &Object<'a>) -> Self {
        Self {
            url: item.text("url"),
            b64_json: item.field("b64_json"),
            revised_prompt: item.text("revised_prompt"),
            seed: item.read_as("seed"),
        }
    }
}

/// From an answer of so many bytes no images are taken while it comes.
const SMALL: usize = 8 * 1024;

/// The images that the body holds.
pub(super) async fn read(body: &mut Body<'_>) -> Result<Output, Failure> {
    if (1..=SMALL).contains(&body.room()) {
        return match body.whole().await {
            Ok(json) => output(body.take_head(), Unpacked::untouched(json), body.secrets),
            Err((json, failure)) => salvage(body.take_head(), Unpacked::untouched(json), body.secrets, Some(failure)),
        };
    }
    read_large(body).await
}

/// Boxed and out of line, or every call would have room for it.
#[inline(never)]
fn read_large<'a>(body: &'a mut Body<'_>) -> BoxFuture<'a, Result<Output, Failure>> {
    Box::pin(async move {
        let mut unpack = Unpack::new(body.room());
        loop {
            match body.next().await {
                Ok(Some(piece)) => unpack.push(&piece),
                Ok(None) => return output(body.take_head(), unpack.finish(), body.secrets),
                Err(failure) => return salvage(body.take_head(), unpack.finish(), body.secrets, Some(failure)),
            }
        }
    })
}

/// No error tells any of the answer's content: it may be megabytes of image.
pub(super) fn output(head: HeaderMap, unpacked: Unpacked, secrets: &Secrets) -> Result<Output, Failure> {
    match serde_json::from_slice(&unpacked.json) {
        Ok(answer) => images(head, answer, &unpacked, secrets),
        Err(_) => salvage(head, unpacked, secrets, None),
    }
}

/// What can be read of an answer that is not in the documented form, or that `broke`: images that had come whole are paid for.
#[cold]
fn salvage(
    head: HeaderMap,
    mut unpacked: Unpacked,
    secrets: &Secrets,
    broke: Option<Failure>,
) -> Result<Output, Failure> {
    unpacked.mend();
    let (answer, failure) = match Object::read(&unpacked.json) {
        Ok(answer) => (Answer::of(&answer), broke),
        Err(error) => {
            let items = Object::list_in_broken(&unpacked.json, "data");
            let answer = Answer { data: items.iter().map(Item::of).collect(), ..Answer::default() };
            (answer, Some(broke.unwrap_or_else(|| json::unreadable(&error, unpacked.received))))
        }
    };
    let Some(failure) = failure else { return images(head, answer, &unpacked, secrets) };
    let id = Said::of(&head).request_id.map(str::to_owned);
    let Ok(mut output) = images(head, answer, &unpacked, secrets) else {
        return Err(failure.named(id.as_deref(), secrets));
    };
    let warning = format!("the answer broke after {} images: {}", output.images.len(), failure.error);
    output.metadata.warnings.push(warning);
    Ok(output)
}

fn images(head: HeaderMap, mut answer: Answer, unpacked: &Unpacked, secrets: &Secrets) -> Result<Output, Failure> {
    let items = std::mem::take(&mut answer.data);
    let mut metadata = metadata(head, answer, secrets);
    let mut images = Vec::with_capacity(items.len());
    for (index, Item { url, b64_json, revised_prompt, seed }) in items.into_iter().enumerate() {
        let content = match (url, b64_json) {
            (Some(url), None) if is_address(&url) => Ok(Some(Content::Address(url))),
            (url, base64) => content(url, base64, unpacked),
        };
        match content {
            Ok(None) => {}
            Ok(Some(content)) => images.push(ImageData { content, revised_prompt: said(revised_prompt), seed }),
            // What else was paid for is kept.
            Err(NotBase64) => {
                metadata.warnings.push(format!("image {} is left out: it is not valid base64", index + 1))
            }
        }
    }
    if images.is_empty() {
        let why = match metadata.warnings.is_empty() {
            true => "the service answered without an image",
            false => "the service answered with an image that is not valid base64",
        };
        return Err(Failure::no_image(why, &unpacked.json, secrets).named(metadata.request_id.as_deref(), secrets));
    }
    Ok(Output { images, metadata })
}

pub(super) struct NotBase64;

/// Some servers put the image itself into the address.
fn is_address(url: &str) -> bool {
    !url.is_empty() && !url.starts_with("data:")
}

/// Bytes before an address: where a server sends both, the bytes need no second request.
#[inline(never)]
fn content(url: Option<String>, base64: Option<&RawValue>, unpacked: &Unpacked) -> Result<Option<Content>, NotBase64> {
    let base64 = base64.and_then(|raw| match unpacked.image(raw.get()) {
        Some(image) => Some(Ok(image)),
        None => lenient::text(raw).map(decode),
    });
    match (base64, said(url)) {
        (Some(Ok(image)), _) if !image.is_empty() => Ok(Some(Content::Bytes(image))),
        (_, Some(url)) if is_address(&url) => Ok(Some(Content::Address(url))),
        (_, Some(url)) => Ok(Some(Content::Bytes(decode(url)?))),
        (Some(Err(error)), None) => Err(error),
        (Some(Ok(_)) | None, None) => Ok(None),
    }
}

/// Base64 that is not plain: in the alphabet for addresses, with a prefix that names the media type, with spaces.
pub(super) fn decode(text: String) -> Result<Bytes, NotBase64> {
    let prefix = if text.starts_with("data:") { text.find(',').map_or(0, |comma| comma + 1) } else { 0 };
    let mut image = text.into_bytes();
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

/// A text that says something.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn metadata(head: HeaderMap, answer: Answer, secrets: &Secrets) -> Box<Metadata> {
    let Answer { created, id, data: _, size, output_format, metadata: service } = answer;
    let Said { provider, model, request_id } = Said::of(&head);
    let owned = |text: Option<&str>| text.map(|text| secrets.blot_key(text));
    // Each field by name: a default whose fields are replaced would be made first, and dropped.
    let mut metadata = Box::new(Metadata {
        backend: String::new(),
        provider: owned(provider),
        model: owned(model),
        cost: None,
        lost_bills: 0,
        request_id: owned(request_id.or(id.as_deref().filter(|id| !id.is_empty()))),
        headers: Headers::new(head),
        size: size.and_then(|size| size.parse().ok()),
        output_format,
        service,
        created,
        addresses_expire: None,
        steps: None,
        elapsed: Duration::ZERO,
        warnings: Vec::new(),
    });
    if metadata.service.is_object() {
        hear_service(&mut metadata, secrets);
    }
    metadata
}

/// What the service says of the making within the answer goes before its headers.
#[inline(never)]
fn hear_service(metadata: &mut Metadata, secrets: &Secrets) {
    let Some(fields) = metadata.service.as_object() else { return };
    let field =
        |name: &str| fields.get(name)?.as_str().filter(|text| !text.is_empty()).map(|text| secrets.blot_key(text));
    let provider = field("provider");
    let model = field("executed_model").or_else(|| field("model"));
    metadata.cost = fields.get("cost").and_then(lenient::number).map(|amount| Cost {
        amount,
        currency: field("cost_currency").unwrap_or_else(|| "USD".into()).to_ascii_uppercase(),
    });
    metadata.provider = provider.or(metadata.provider.take());
    metadata.model = model.or(metadata.model.take());
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::error::ErrorKind;
    use crate::remote::failure::Verdict;
    use crate::remote::key::Key;

    fn read(body: &[u8]) -> Result<Output, Failure> {
        let mut unpack = Unpack::new(0);
        unpack.push(body);
        let secrets = Secrets::new(Some(&Key::new("canary-key", "Bearer", "KEY").unwrap()), []);
        let unpacked = output(HeaderMap::new(), unpack.finish(), &secrets);
        let untouched = output(HeaderMap::new(), Unpacked::untouched(Bytes::copy_from_slice(body)), &secrets);
        let told = |output: &Result<Output, Failure>| format!("{:?}", output.as_ref().map(|output| &output.images));
        assert_eq!(told(&unpacked), told(&untouched), "{}", String::from_utf8_lossy(body));
        unpacked
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
        let body = r#"{"created":"yesterday","output_format":"heic","size":7,"quality":"new","usage":null,"metadata":[],
            "data":[{"url":"https://x/1","revised_prompt":["?"]},{"new":true},{"url":"https://x/2"}]}"#;
        assert_eq!(images(body), [Content::Address("https://x/1".into()), Content::Address("https://x/2".into())]);
    }

    #[test]
    fn no_odd_item_costs_another_image() {
        for odd in [
            "null",
            "7",
            r#""https://x/0""#,
            "[]",
            r#"{"url":7}"#,
            r#"{"b64_json":7}"#,
            r#"{"url":"","b64_json":""}"#,
            r#"{"url":{"href":"https://x/0"}}"#,
        ] {
            let body = format!(r#"{{"data":[{odd},{{"url":"https://x/1","b64_json":false}}]}}"#);
            assert_eq!(images(&body), [Content::Address("https://x/1".into())], "{odd}");
            let body = format!(r#"{{"data":[{{"b64_json":"aGVsbG8=","url":[]}},{odd}]}}"#);
            assert_eq!(images(&body), [Content::Bytes("hello".into())], "{odd}");
        }
    }

    #[test]
    fn an_error_with_a_success_for_its_status_is_told_in_the_words_of_the_service() {
        for (body, kind, code, said) in [
            (
                r#"{"error":{"message":"no GPU for canary-key","code":"BUSY"}}"#,
                ErrorKind::InvalidResponse,
                Some("BUSY"),
                ": no GPU for [key]",
            ),
            (r#"{"data":[],"error":"no GPU"}"#, ErrorKind::InvalidResponse, None, ": no GPU"),
            (
                r#"{"data":null,"code":"CONTENT_POLICY_VIOLATION","message":"no"}"#,
                ErrorKind::ContentPolicy,
                Some("CONTENT_POLICY_VIOLATION"),
                ": no",
            ),
            (r#"{"data":[],"type":"list"}"#, ErrorKind::InvalidResponse, None, ""),
        ] {
            let Failure { error, verdict } = read(body.as_bytes()).unwrap_err();
            assert_eq!((error.kind(), error.code(), verdict), (kind, code, Verdict::Final), "{body}");
            let code = code.map(|code| format!(" [{code}]")).unwrap_or_default();
            let billed = "(the request may have been billed)";
            assert_eq!(error.to_string(), format!("the service answered without an image{said}{code} {billed}"));
        }
    }

    #[test]
    fn what_json_does_not_allow_costs_no_image() {
        let half = br#"{"data":[{"b64_json":"aGVsbG8=","revised_prompt":"a \ud83d"}],"id":"\udc00","metadata":{"x":"\ud800"}}"#;
        let bytes = b"\xEF\xBB\xBF{\"data\":[{\"revised_prompt\":\"a \xF0\x9F\",\"b64_json\":\"aGVsbG8=\"}]}";
        let controls = b"{\"data\":[{\"revised_prompt\":\"a \n\t\x00\",\"b64_json\":\"aGVsbG8=\"}]}";
        let numbers = br#"{"metadata":{"cost":NaN,"x":[-Infinity,Infinity]},"data":[{"revised_prompt":"a NaN\"","b64_json":"aGVsbG8="}]}"#;
        for body in [&half[..], bytes, controls, numbers] {
            let output = read(body).unwrap();
            assert_eq!(output.images[0].content, Content::Bytes("hello".into()));
            assert!(output.images[0].revised_prompt.as_ref().unwrap().starts_with("a "));
        }
    }

    #[test]
    fn images_that_came_before_the_answer_broke_are_kept() {
        let whole = r#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json":"d29ybGQh"}]}"#;
        for (length, kept) in [(whole.len() - 1, 2), (whole.len() - 6, 1), (31, 1)] {
            let Output { images, metadata } = read(&whole.as_bytes()[..length]).unwrap();
            assert_eq!((images.len(), &images[0].content), (kept, &Content::Bytes("hello".into())));
            assert!(metadata.warnings[0].starts_with(&format!("the answer broke after {kept} images")));
        }
        assert!(read(&whole.as_bytes()[..30]).unwrap_err().error.maybe_billed());
    }

    #[test]
    fn addresses_that_came_before_the_answer_broke_are_kept() {
        let whole = r#"{"metadata":{"cost":0.1},"data":[{"url":"https://x/0","seed":7},{"url":"https://x/1"}]}"#;
        let at = |text| whole.find(text).unwrap();
        for (length, kept) in [(whole.len() - 1, 2), (at("/1"), 1), (at(",\"seed"), 1)] {
            let images = read(&whole.as_bytes()[..length]).unwrap().images;
            assert_eq!((images.len(), &images[0].content), (kept, &Content::Address("https://x/0".into())));
        }
        assert!(read(&whole.as_bytes()[..at("/0")]).is_err());

        // All of it came, but not the end of the connection's own framing.
        let failure = Failure::useless_answer("broken");
        let unpacked = Unpacked::untouched(Bytes::from_static(whole.as_bytes()));
        let Output { images, metadata } =
            salvage(HeaderMap::new(), unpacked, &Secrets::default(), Some(failure)).unwrap();
        assert_eq!((images.len(), images[0].seed, metadata.cost.unwrap().amount), (2, Some(7), 0.1));
        assert!(metadata.warnings[0].starts_with("the answer broke after 2 images: broken"));
    }

    #[test]
    fn fields_that_come_twice_and_what_follows_cost_no_image() {
        let body =
            "{\"created\":1,\"created\":2,\"data\":[{\"url\":\"https://x/0\",\"url\":\"https://x/1\"}]}\0<!-- -->";
        assert_eq!(images(body), [Content::Address("https://x/1".into())]);
        assert_eq!(read(body.as_bytes()).unwrap().metadata.created, Some(2));
    }

    #[test]
    fn a_paid_answer_of_no_use_names_the_request() {
        let head =
            || HeaderMap::from_iter([(HeaderName::from_static("x-request-id"), HeaderValue::from_static("req_9"))]);
        for body in [&b"{}"[..], b"<html>", br#"{"data":[{"b64_json":"?"}]}"#] {
            let unpacked = Unpacked::untouched(Bytes::copy_from_slice(body));
            let error = output(head(), unpacked, &Secrets::default()).unwrap_err().error;
            assert_eq!((error.request_id(), error.maybe_billed()), (Some("req_9"), true));
        }
    }

    #[test]
    fn one_image_may_come_without_a_list() {
        assert_eq!(images(r#"{"data":{"url":"https://x/1"}}"#), [Content::Address("https://x/1".into())]);
    }

    #[test]
    fn what_the_service_tells_of_the_making_is_kept() {
        let body =
            br#"{"created":1.5e9,"size":"1024x768","output_format":"webp","data":[{"url":"https://x/1","seed":7}],
            "metadata":{"provider_name":"fal.ai","cost":"0.02","attempts":[{"provider":"replicate"}]}}"#;
        let Output { images, metadata } = read(body).unwrap();
        assert_eq!((images[0].seed, metadata.created), (Some(7), Some(1_500_000_000)));
        assert_eq!(metadata.size, "1024x768".parse().ok());
        assert_eq!(metadata.output_format, Some(crate::OutputFormat::Webp));
        assert_eq!(metadata.service["attempts"][0]["provider"], "replicate");
        assert_eq!(metadata.cost.unwrap().amount, 0.02);
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
