//! The gateway's recorder: answers kept and given again, so that tests cost nothing.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind};

const MODE: HeaderName = HeaderName::from_static("x-lumenfall-replay");
const MATCH: HeaderName = HeaderName::from_static("x-lumenfall-replay-match");
const FIELDS: HeaderName = HeaderName::from_static("x-lumenfall-replay-fields");
const RECORDING: HeaderName = HeaderName::from_static("x-lumenfall-replay-recording");

/// What the gateway's recorder does with a request.
///
/// ```
/// use lumenfall::Client;
/// use lumenfall::remote::Replay;
///
/// // In tests: a recorded answer where there is one, a free placeholder where there is none.
/// let client = Client::builder().api_key("lmnfl_id.secret").replay(Replay::replay_or_mock()).build()?;
/// // An answer to the same prompt, whatever the other parameters.
/// let loose = Replay::replay_or_error().matching_fields(["prompt"]);
/// # let _ = (client, loose);
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Replay {
    mode: &'static str,
    matching: Matching,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matching {
    /// The gateway's own choice.
    Default,
    Standard,
    Strict,
    Fields(Vec<String>),
    Pinned(String),
}

impl Replay {
    fn mode(mode: &'static str) -> Self {
        Self { mode, matching: Matching::Default }
    }

    /// Neither keeps nor gives again.
    pub fn off() -> Self {
        Self::mode("off")
    }

    /// Executes the request and keeps its answer.
    pub fn record() -> Self {
        Self::mode("record")
    }

    /// Gives a kept answer, or else a placeholder. Never costs anything.
    pub fn replay_or_mock() -> Self {
        Self::mode("replay-or-mock")
    }

    /// Gives a kept answer, or else fails with the code `RECORDING_NOT_FOUND`. Never costs anything.
    pub fn replay_or_error() -> Self {
        Self::mode("replay-or-error")
    }

    /// Gives a kept answer, or else executes the request.
    pub fn replay_or_live() -> Self {
        Self::mode("replay-or-live")
    }

    /// Gives a kept answer, or else executes the request and keeps its answer.
    pub fn replay_or_record() -> Self {
        Self::mode("replay-or-record")
    }

    /// Gives a well-formed placeholder at once. Never costs anything.
    pub fn mock() -> Self {
        Self::mode("mock")
    }

    /// Kept answers match by the gateway's standard rule.
    pub fn matching_standard(mut self) -> Self {
        self.matching = Matching::Standard;
        self
    }

    /// Kept answers match only if every field is the same.
    pub fn matching_strictly(mut self) -> Self {
        self.matching = Matching::Strict;
        self
    }

    /// Kept answers match if these fields are the same.
    pub fn matching_fields(mut self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.matching = Matching::Fields(fields.into_iter().map(Into::into).collect());
        self
    }

    /// Gives this one recording (`rec_…`).
    pub fn recording(mut self, id: impl Into<String>) -> Self {
        self.matching = Matching::Pinned(id.into());
        self
    }

    pub(super) fn headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::from_iter([(MODE, HeaderValue::from_static(self.mode))]);
        let matching = |name| (MATCH, HeaderValue::from_static(name));
        headers.extend(match &self.matching {
            Matching::Default => vec![],
            Matching::Standard => vec![matching("standard")],
            Matching::Strict => vec![matching("strict")],
            Matching::Fields(fields) => vec![matching("specific"), (FIELDS, value(&fields.join(","))?)],
            Matching::Pinned(id) => vec![matching("pinned"), (RECORDING, value(id)?)],
        });
        Ok(headers)
    }
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
        let message = format!("{text:?} cannot stand in a header; give the names of fields, or a recording's id");
        Error::new(ErrorKind::Configuration, message).with_parameter("replay")
    })
}
