//! What the gateway says in an answer's headers.

use reqwest::header::{HeaderMap, HeaderName};

pub(super) const MODEL: HeaderName = HeaderName::from_static("x-lumenfall-model");
pub(super) const PROVIDER: HeaderName = HeaderName::from_static("x-lumenfall-provider");
const GATEWAY_REQUEST_ID: HeaderName = HeaderName::from_static("x-lumenfall-request-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    text(headers, GATEWAY_REQUEST_ID).or_else(|| text(headers, REQUEST_ID))
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}
