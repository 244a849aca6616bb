//! The response to a generation or an edit.

use bytes::Bytes;
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::base64_stream::Extracted;
use super::body::Body;
use super::explanation::Explanation;
use super::failure::Failure;
use super::received::Received;
use super::{headers, json, lenient};
use crate::backend::{Content, Cost, Headers, ImageData, Metadata, Output, ServiceMetadata};
use crate::remote::secrets::Secrets;
use crate::values::OutputFormat;

/// Reads the images while the body is received: JSON, or a stream of events whose partial images become progress.
pub(crate) async fn read(body: &mut Body<'_>) -> Result<Output, Failure> {
    let (base, context) = (body.base, body.context);
    let report = |progress| context.report(progress);
    let mut received = Received::new(body.media_type(), body.capacity());
    let interruption = loop {
        match body.next().await {
            Ok(Some(chunk)) => received.push(&chunk, &report),
            Ok(None) => break None,
            Err(failure) => break Some(failure),
        }
    };
    output(body.take_headers(), received.finish(&report), base, body.secrets, interruption)
}

/// Returns the images of a response. Images that were received before an `interruption`, or before the JSON becomes
/// malformed, are returned too: they are paid for. Relative URLs are joined to `base`.
///
/// No error quotes the response, which can contain megabytes of image data.
pub(crate) fn output(
    head: HeaderMap,
    mut response: Extracted,
    base: &Url,
    secrets: &Secrets,
    interruption: Option<Failure>,
) -> Result<Output, Failure> {
    let response_body = std::mem::take(&mut response.json);
    if OutputFormat::of(&response_body).is_some() && interruption.is_none() {
        // Some servers send the file itself.
        let images = vec![ImageData::new(response_body)];
        return Ok(Output::new(images, metadata(head, &Value::Null, secrets)));
    }
    let page =
        response_body.trim_ascii_start().starts_with(b"<").then(|| String::from_utf8_lossy(&response_body).into());
    let (mut body, malformed) = lenient::parse(response_body);
    let failure =
        interruption.or_else(|| malformed.map(|error| json::unreadable(&error, response.received, page, secrets)));
    // Some servers return a single object instead of an array.
    let items = match body.get("data") {
        Some(Value::Array(items)) => items.as_slice(),
        Some(item) => std::slice::from_ref(item),
        None => &[],
    };
    let mut images = Vec::with_capacity(items.len());
    let mut warnings = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let revised_prompt = lenient::text(item, "revised_prompt").map(str::to_owned);
        match content(item, &response, base) {
            Ok(Some(content)) => {
                images.push(ImageData { content, revised_prompt, seed: item.get("seed").and_then(Value::as_u64) })
            }
            Ok(None) => {}
            Err(NotBase64) => warnings.push(format!("image {} was dropped: it is not valid base64", index + 1)),
        }
    }
    if images.is_empty() {
        let id = request_id(&head, &body).map(str::to_owned);
        let failure = failure.unwrap_or_else(|| {
            let problem = match warnings.is_empty() {
                true => "the response contains no image",
                false => "the response contains no image that is valid base64",
            };
            Failure::no_image(problem, &body, secrets)
        });
        return Err(failure.with_request_id(id.as_deref(), secrets));
    }
    if let Some(message) = body.get("error").and_then(|error| Explanation::of_json(error).message(secrets)) {
        warnings.push(format!("the service reported an error: {message}"));
    }
    warnings.extend(
        failure.map(|failure| format!("the response was incomplete after {} images: {}", images.len(), failure.error)),
    );
    let mut metadata = metadata(head, &body, secrets);
    metadata.service = service_fields(body.take(), "data", &["b64_json", "url", "revised_prompt", "seed"]);
    metadata.warnings = warnings;
    Ok(Output::new(images, metadata))
}

/// Returns the fields of a response without its images: the list `images`, whose items keep the fields that are not
/// `consumed`.
pub(crate) fn service_fields(body: Value, images: &str, consumed: &[&str]) -> ServiceMetadata {
    let Value::Object(mut fields) = body else { return ServiceMetadata::default() };
    if let Some(mut items) = fields.remove(images) {
        let items = match &mut items {
            Value::Array(items) => items.as_mut_slice(),
            item => std::slice::from_mut(item),
        };
        let rest = |item: &mut Value| {
            let fields = item.as_object_mut().map(std::mem::take).unwrap_or_default();
            fields.into_iter().filter(|(name, _)| !consumed.contains(&name.as_str())).collect::<Map<_, _>>()
        };
        let items: Vec<_> = items.iter_mut().map(rest).collect();
        if items.iter().any(|item| !item.is_empty()) {
            fields.insert(images.to_owned(), items.into());
        }
    }
    ServiceMetadata(fields)
}

pub(crate) struct NotBase64;

/// Returns the content of an image. Bytes are preferred to a URL, because they need no second request.
fn content(item: &Value, response: &Extracted, base: &Url) -> Result<Option<Content>, NotBase64> {
    let base64 = lenient::text(item, "b64_json");
    let bytes = base64.map(|text| response.image(text).map_or_else(|| decode(text), Ok));
    let url = lenient::text(item, "url");
    match (bytes, url) {
        (Some(Ok(bytes)), _) if !bytes.is_empty() => Ok(Some(Content::Bytes(bytes))),
        // Some servers embed the image in the URL.
        (_, Some(url)) if url.starts_with("data:") => Ok(Some(Content::Bytes(decode(url)?))),
        (_, Some(url)) => Ok(Some(Content::Url(absolute(url, base)))),
        (Some(Err(error)), None) => Err(error),
        (Some(Ok(_)) | None, None) => Ok(None),
    }
}

/// Joins a relative URL to the base URL, whose last segment is a folder.
fn absolute(url: &str, base: &Url) -> String {
    // Parsing an absolute URL would take almost as long as everything else here.
    if url.starts_with("https://") || url.starts_with("http://") || Url::parse(url).is_ok() {
        return url.to_owned();
    }
    let mut folder = base.clone();
    if let Ok(mut segments) = folder.path_segments_mut() {
        segments.pop_if_empty().push("");
    }
    folder.join(url).map_or_else(|_| url.to_owned(), String::from)
}

/// Decodes base64, which may have a `data:` prefix, whitespace, no padding, or the URL-safe alphabet.
pub(crate) fn decode(text: &str) -> Result<Bytes, NotBase64> {
    let base64 = text.starts_with("data:").then(|| text.split_once(',')).flatten().map_or(text, |(_, base64)| base64);
    let standard = |byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => byte,
    };
    let mut image: Vec<u8> = base64.bytes().map(standard).collect();
    let length = base64_simd::forgiving_decode_inplace(&mut image).map_err(|_| NotBase64)?.len();
    image.truncate(length);
    Ok(image.into())
}

fn request_id<'a>(head: &'a HeaderMap, body: &'a Value) -> Option<&'a str> {
    headers::request_id(head).or_else(|| lenient::text(body, "id"))
}

/// Returns the metadata of a response. Metadata in the body takes precedence over headers.
fn metadata(head: HeaderMap, body: &Value, secrets: &Secrets) -> Metadata {
    let service = body.get("metadata").unwrap_or(&Value::Null);
    let header = |name: &str| headers::text(&head, name).map(|text| secrets.redact_key(text));
    let text = |object: &Value, name: &str| lenient::text(object, name).map(|text| secrets.redact_key(text));
    Metadata {
        provider: text(service, "provider").or_else(|| header("x-lumenfall-provider")),
        model: text(service, "executed_model")
            .or_else(|| text(service, "model"))
            .or_else(|| header("x-lumenfall-model")),
        cost: service
            .get("cost")
            .and_then(lenient::number)
            .map(|amount| Cost::new(amount, text(service, "cost_currency").unwrap_or_else(|| "USD".into()))),
        gateway_retries: headers::gateway_retries(&head),
        request_id: request_id(&head, body).map(|id| secrets.redact_key(id)),
        headers: Headers::new(head),
        size: lenient::text(body, "size").and_then(|size| size.parse().ok()),
        output_format: body.get("output_format").and_then(|format| OutputFormat::deserialize(format).ok()),
        created: lenient::integer(body, "created").or_else(|| lenient::integer(body, "created_at")),
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::error::ErrorKind;
    use crate::remote::response::failure::Verdict;
    use crate::remote::secrets::Key;

    fn read(body: &[u8]) -> Result<Output, Failure> {
        let secrets = Secrets::new(Some(&Key::new("canary-key", "Bearer", "KEY").unwrap()), []);
        output(HeaderMap::new(), extract(body), &base(), &secrets, None)
    }

    fn base() -> Url {
        "https://api.example:8000/openai/v1?api-version=1".parse().unwrap()
    }

    fn extract(body: &[u8]) -> Extracted {
        let mut received = Received::new(None, 0);
        received.push(body, &|_| ());
        received.finish(&|_| ())
    }

    /// Returns the decoded text or the URL of each image.
    fn contents(body: &str) -> Vec<String> {
        let content = |image: ImageData| match image.content {
            Content::Bytes(bytes) => String::from_utf8(bytes.into()).unwrap(),
            Content::Url(url) | Content::Unfetched(url) => url,
        };
        read(body.as_bytes()).unwrap().images.into_iter().map(content).collect()
    }

    #[test]
    fn images_are_read_in_each_form() {
        for (data, images) in [
            (r#"[{"b64_json":"aGVsbG8="},{"b64_json":""},{"b64_json":"d29ybGQh"}]"#, &["hello", "world!"][..]),
            (r#"[{"b64_json":"aGVsbG8"}]"#, &["hello"]),
            (r#"[{"b64_json":"aGVs\nbG8="}]"#, &["hello"]),
            (r#"[{"b64_json":"aGVs\u0062G8="}]"#, &["hello"]),
            (r#"[{"b64_json":"data:image/png;base64,aGVsbG8="}]"#, &["hello"]),
            (r#"[{"b64_json":"fn5-fn5_"}]"#, &["~~~~~\u{7f}"]),
            (r#"[{"url":"data:image/png;base64,aGVsbG8=","b64_json":null}]"#, &["hello"]),
            // Bytes are preferred, unless they are invalid.
            (r#"[{"b64_json":"aGVsbG8=","url":"https://x/1"}]"#, &["hello"]),
            (r#"[{"b64_json":"n.a.","url":"https://x/1"}]"#, &["https://x/1"]),
            // A single object, and duplicate fields.
            (r#"{"url":"https://x/1"}"#, &["https://x/1"]),
            (r#"[{"url":"https://x/0","url":"https://x/1"}]"#, &["https://x/1"]),
            (r#"[{"url":"https://x/1","revised_prompt":["?"]},{"new":true}]"#, &["https://x/1"]),
        ] {
            let body =
                format!(r#"{{"created":"yesterday","size":7,"usage":null,"metadata":[],"data":{data}}} <!-- -->"#);
            assert_eq!(contents(&body), images, "{data}");
        }
    }

    #[test]
    fn relative_urls_are_joined_to_the_base_url() {
        for (url, joined) in [
            ("/v1/images/7/content", "https://api.example:8000/v1/images/7/content"),
            ("files/7.png?sig=s", "https://api.example:8000/openai/v1/files/7.png?sig=s"),
            ("//media.example/7.png", "https://media.example/7.png"),
            ("http://x/1", "http://x/1"),
        ] {
            assert_eq!(contents(&format!(r#"{{"data":[{{"url":"{url}"}}]}}"#)), [joined]);
        }
    }

    #[test]
    fn unknown_fields_are_kept_without_the_images() {
        let body = br#"{"created":1,"background":"opaque","usage":{"total_tokens":7},"error":{"message":"one failed"},
            "data":[{"b64_json":"aGVsbG8=","id":"i1","url":null,"seed":7},{"b64_json":"?"}]}"#;
        let Output { metadata, .. } = read(body).unwrap();
        let kept = serde_json::json!({
            "created": 1, "background": "opaque", "usage": { "total_tokens": 7 }, "error": { "message": "one failed" },
            "data": [{ "id": "i1" }, {}],
        });
        assert_eq!(Value::Object(metadata.service.0), kept);
        assert_eq!(metadata.warnings[1], "the service reported an error: one failed");
    }

    #[test]
    fn the_file_itself_is_an_image_unless_it_is_truncated() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        assert_eq!(read(png).unwrap().images[0].content, Content::Bytes(Bytes::from_static(png)));
        let failure = Failure::unusable_response("broken");
        let truncated = output(HeaderMap::new(), extract(png), &base(), &Secrets::default(), Some(failure));
        assert!(truncated.unwrap_err().error.to_string().starts_with("broken"));
    }

    #[test]
    fn a_page_in_place_of_json_is_explained() {
        let error = read(b"<html><title>Sign in</title><script>x = canary-key</script></html>").unwrap_err().error;
        assert_eq!(
            error.to_string(),
            "the response body is not valid JSON: Sign in (the request may have been billed)"
        );
    }

    #[test]
    fn an_invalid_image_is_dropped_with_a_warning() {
        let output = read(br#"{"data":[{"b64_json":"aGVsbG8="},{"b64_json":"?"}]}"#).unwrap();
        assert_eq!(
            (output.images.len(), &output.metadata.warnings[..]),
            (1, &["image 2 was dropped: it is not valid base64".to_owned()][..])
        );
    }

    #[test]
    fn malformed_items_do_not_affect_others() {
        for item in [
            "null",
            "7",
            r#""https://x/0""#,
            "[]",
            r#"{"url":7}"#,
            r#"{"b64_json":7}"#,
            r#"{"url":"","b64_json":""}"#,
            r#"{"url":{"href":"https://x/0"}}"#,
        ] {
            let body = format!(r#"{{"data":[{item},{{"url":"https://x/1","b64_json":false}},{item}]}}"#);
            assert_eq!(contents(&body), ["https://x/1"], "{item}");
        }
    }

    #[test]
    fn an_error_with_a_success_status_is_reported_with_the_message_of_the_service() {
        for (body, kind, code, explanation) in [
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
            assert_eq!(error.to_string(), format!("the response contains no image{explanation}{code} {billed}"));
        }
    }

    #[test]
    fn images_and_urls_before_an_interruption_are_kept() {
        let whole = r#"{"data":[{"b64_json":"aGVsbG8="},{"url":"https://x/1","seed":7},{"b64_json":"d29ybGQh"}]}"#;
        let end = |text| whole.find(text).unwrap();
        for (length, kept) in [(whole.len() - 1, 3), (whole.len() - 6, 2), (end(",\"seed"), 2), (end("/1"), 1), (31, 1)]
        {
            let Output { images, metadata } = read(&whole.as_bytes()[..length]).unwrap();
            assert_eq!((images.len(), &images[0].content), (kept, &Content::Bytes("hello".into())));
            assert!(metadata.warnings[0].starts_with(&format!("the response was incomplete after {kept} images")));
        }
        assert!(read(&whole.as_bytes()[..30]).unwrap_err().error.maybe_billed());

        // The whole body was received, but not the end of the HTTP framing.
        let failure = Failure::unusable_response("broken");
        let response = extract(whole.as_bytes());
        let Output { images, metadata } =
            output(HeaderMap::new(), response, &base(), &Secrets::default(), Some(failure)).unwrap();
        assert_eq!((images.len(), images[1].seed), (3, Some(7)));
        assert!(metadata.warnings[0].starts_with("the response was incomplete after 3 images: broken"));
    }

    #[test]
    fn an_unusable_response_names_the_request() {
        let head =
            || HeaderMap::from_iter([(HeaderName::from_static("x-request-id"), HeaderValue::from_static("req_9"))]);
        for body in [&b"{}"[..], b"<html>", br#"{"data":[{"b64_json":"?"}]}"#] {
            let error = output(head(), extract(body), &base(), &Secrets::default(), None).unwrap_err().error;
            assert_eq!((error.request_id(), error.maybe_billed()), (Some("req_9"), true));
        }
    }

    #[test]
    fn metadata_is_kept() {
        let body =
            br#"{"created":1.5e9,"size":"1024x768","output_format":"webp","data":[{"url":"https://x/1","seed":7}],
            "metadata":{"provider_name":"fal.ai","cost":"0.02","attempts":[{"provider":"replicate"}]}}"#;
        let Output { images, metadata } = read(body).unwrap();
        assert_eq!((images[0].seed, metadata.created), (Some(7), Some(1_500_000_000)));
        assert_eq!(metadata.size, "1024x768".parse().ok());
        assert_eq!(metadata.output_format, Some(crate::OutputFormat::Webp));
        assert_eq!(metadata.service.0["metadata"]["attempts"][0]["provider"], "replicate");
        assert_eq!(metadata.cost.unwrap().micros, 20_000);
    }

    #[test]
    fn messages_do_not_contain_the_body() {
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
