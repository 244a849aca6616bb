//! What the gateway says in an answer's headers.

use reqwest::header::HeaderMap;

pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-lumenfall-request-id").or_else(|| text(headers, "x-request-id"))
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}
