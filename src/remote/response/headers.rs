//! The metadata in response headers.

use reqwest::header::HeaderMap;

/// Returns the value of the header `name` if it is text and not empty.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// Returns the service's id of the request.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-lumenfall-request-id").or_else(|| text(headers, "x-request-id"))
}
