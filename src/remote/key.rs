//! The key, which must never be printed.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::error::{Error, ErrorKind};

/// An API key. It is sent to the API's host and nowhere else, and it does not print.
#[derive(Clone)]
pub(crate) struct Key {
    text: String,
    header: HeaderValue,
}

impl Key {
    /// `scheme` is the word before it in the header, `variable` where people keep it.
    pub(crate) fn new(text: &str, scheme: &str, variable: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Err(configuration(format!("the API key is empty; set {variable} or call `.api_key(..)`")));
        }
        // A visible ASCII character is all that a bearer token may hold; a line break is the usual accident.
        if let Some(position) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(configuration(format!(
                "the API key has a character at position {position} that cannot stand in a header, such as a line \
                 break or a space; remove it"
            )));
        }
        let mut header = HeaderValue::from_str(&format!("{scheme} {text}"))
            .map_err(|_| configuration("the API key cannot stand in a header"))?;
        header.set_sensitive(true);
        Ok(Self { text: text.to_owned(), header })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// What must not be told, even where a service quotes it: the key, and whatever else may be one.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// Each with what stands in its place; the longest first, since one may begin with another.
    texts: Vec<(String, &'static str)>,
}

/// What stands in the key's place.
const KEY: &str = "[key]";

/// A shorter value is no secret, and blotting it out would spoil ordinary words.
const SHORTEST: usize = 8;

impl Secrets {
    /// `others` are values of headers and of addresses' queries; each part of them may be a secret on its own.
    pub(super) fn new(key: Option<&Key>, others: impl IntoIterator<Item = String>) -> Self {
        let mut texts: Vec<_> = key.map(|key| (key.text.clone(), KEY)).into_iter().collect();
        let mut add = |whole: &str, separators: &[char], place| {
            let parts = whole.split(separators).filter(|part| part.len() < whole.len());
            let secrets = parts.chain([whole]).filter(|text| text.len() >= SHORTEST);
            texts.extend(secrets.map(|text| (text.to_owned(), place)));
        };
        if let Some(key) = key {
            // Keys have an id in front; a service may quote what comes behind it.
            add(&key.text, &['.', ':'], KEY);
        }
        others.into_iter().for_each(|other| add(&other, &[' ', ',', ';', ':', '=', '"'], "[secret]"));
        texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { texts }
    }

    /// Blots them out of a text from outside.
    pub(super) fn blot(&self, text: &str) -> String {
        self.without(text, |_| true)
    }

    /// Blots the key out of a name from outside. What else may be a secret may also be a name, such as a provider's.
    pub(super) fn blot_key(&self, name: &str) -> String {
        self.without(name, |place| place == KEY)
    }

    fn without(&self, text: &str, counts: impl Fn(&str) -> bool) -> String {
        let mut text = text.to_owned();
        for (secret, place) in self.texts.iter().filter(|(_, place)| counts(place)) {
            if text.contains(secret.as_str()) {
                text = text.replace(secret, place);
            }
        }
        text
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

fn configuration(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message).with_parameter("api_key")
}
