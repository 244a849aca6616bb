//! The API key, and the removal of secrets from text.

use std::fmt;

use reqwest::header::HeaderValue;

use crate::error::{Error, ErrorKind};

/// An API key. It is sent to the API's hosts only, and `Debug` does not print it.
#[derive(Clone)]
pub(crate) struct Key {
    text: String,
    header: HeaderValue,
}

impl Key {
    /// `scheme` precedes the key in its header, unless it is empty; `variable` is its environment variable.
    pub(crate) fn new(text: &str, scheme: &str, variable: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Err(invalid(format!("the API key is empty; set {variable} or call `.api_key(..)`")));
        }
        if let Some(position) = text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(invalid(format!(
                "the API key contains a character at position {position} that is not allowed in a header, such as a line \
                 break or a space; remove it"
            )));
        }
        let mut header = HeaderValue::from_str(format!("{scheme} {text}").trim_start())
            .map_err(|_| invalid("the API key is not allowed in a header"))?;
        header.set_sensitive(true);
        Ok(Self { text: text.to_owned(), header })
    }

    /// Returns the value of the header that contains the key.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// Texts that must not be printed, even if a service quotes them: the key, and other values that may be secret.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// Each secret with its replacement; the longest first, because one may be the start of another.
    texts: Vec<(String, &'static str)>,
}

const KEY_REPLACEMENT: &str = "[key]";
const OTHER_REPLACEMENT: &str = "[secret]";

/// Shorter values are not secret, and replacing them would spoil ordinary words.
const MIN_LENGTH: usize = 8;

impl Secrets {
    /// `others` are values of headers and of URL queries. Each part of them may be secret.
    pub(crate) fn new(key: Option<&Key>, others: impl IntoIterator<Item = String>) -> Self {
        let mut texts: Vec<_> = key.map(|key| (key.text.clone(), KEY_REPLACEMENT)).into_iter().collect();
        let mut add = |whole: &str, separators: &[char], replacement| {
            let parts = whole.split(separators).filter(|part| part.len() < whole.len());
            let secrets = parts.chain([whole]).filter(|text| text.len() >= MIN_LENGTH);
            texts.extend(secrets.map(|text| (text.to_owned(), replacement)));
        };
        if let Some(key) = key {
            // Keys start with an id; a service may quote only what follows it.
            add(&key.text, &['.', ':'], KEY_REPLACEMENT);
        }
        others.into_iter().for_each(|other| add(&other, &[' ', ',', ';', ':', '=', '"'], OTHER_REPLACEMENT));
        texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { texts }
    }

    /// Returns these secrets and `others`, which are values of headers.
    pub(crate) fn with(&self, others: impl IntoIterator<Item = String>) -> Self {
        let mut all = Self::new(None, others);
        all.texts.extend(self.texts.iter().cloned());
        all.texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        all
    }

    /// Returns these secrets and `others`, which are secret as a whole, however short they are.
    pub(crate) fn with_whole(mut self, others: impl IntoIterator<Item = String>) -> Self {
        self.texts.extend(others.into_iter().filter(|text| !text.is_empty()).map(|text| (text, OTHER_REPLACEMENT)));
        self.texts.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        self
    }

    /// Replaces all secrets in a message of the service.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.replace(text, |_| true)
    }

    /// Replaces the key in a name. Other values that may be secret may also be legitimate names, such as a provider's.
    pub(crate) fn redact_key(&self, name: &str) -> String {
        self.replace(name, |replacement| replacement == KEY_REPLACEMENT)
    }

    fn replace(&self, text: &str, includes: impl Fn(&str) -> bool) -> String {
        let secrets = self.texts.iter().filter(|(_, replacement)| includes(replacement));
        secrets.fold(text.to_owned(), |text, (secret, replacement)| text.replace(secret, replacement))
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

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message).with_parameter("api_key")
}
