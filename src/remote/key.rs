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

    /// Blots the key out of a text from outside, such as a message of a service that quotes it.
    pub(super) fn blot(&self, text: &str) -> String {
        text.replace(&self.text, "[key]")
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
