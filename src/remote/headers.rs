//! What the gateway says in an answer's headers.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// What an answer's headers say of its making. A text that says nothing is none.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub(super) provider: Option<&'a str>,
    pub(super) model: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// In one pass: there are few headers, and looking each up takes longer.
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let mut said = Self::default();
        let mut others_id = None;
        for (name, value) in headers {
            let place = match name.as_str() {
                "x-lumenfall-provider" => &mut said.provider,
                "x-lumenfall-model" => &mut said.model,
                "x-lumenfall-request-id" => &mut said.request_id,
                "x-request-id" => &mut others_id,
                _ => continue,
            };
            *place = place.or(says(value));
        }
        said.request_id = said.request_id.or(others_id);
        said
    }
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(says)
}

fn says(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().filter(|text| !text.is_empty())
}
