//! What the gateway says in an answer's headers.

use reqwest::header::{HeaderMap, SET_COOKIE};

pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    text(headers, "x-lumenfall-request-id").or_else(|| text(headers, "x-request-id"))
}

pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// All headers that are text. A cookie is a secret of the session, and metadata gets printed.
pub(super) fn all(headers: &HeaderMap) -> Vec<(String, String)> {
    let texts = headers.iter().filter(|(name, _)| **name != SET_COOKIE);
    texts.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned()))).collect()
}
