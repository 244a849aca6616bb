//! The gateway's recorder: recorded responses are replayed, so that tests cost nothing.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind};

const MODE: HeaderName = HeaderName::from_static("x-lumenfall-replay");
const MATCH: HeaderName = HeaderName::from_static("x-lumenfall-replay-match");
const FIELDS: HeaderName = HeaderName::from_static("x-lumenfall-replay-fields");
const RECORDING: HeaderName = HeaderName::from_static("x-lumenfall-replay-recording");

/// Controls the gateway's recorder.
///
/// ```
/// use lumenfall::remote::{Remote, Replay};
///
/// // In tests: a recorded response if there is one, or else a free placeholder.
/// let remote = Remote::builder().api_key("lmnfl_id.secret").replay(Replay::replay_or_mock()).build()?;
/// // A response to the same prompt, whatever the other parameters are.
/// let loose = Replay::replay_or_error().matching_fields(["prompt"]);
/// # let _ = (remote, loose);
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
    /// The gateway's default.
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

    /// Neither records nor replays.
    pub fn off() -> Self {
        Self::mode("off")
    }

    /// Executes the request and records its response.
    pub fn record() -> Self {
        Self::mode("record")
    }

    /// Replays a recorded response, or else returns a placeholder. Always free.
    pub fn replay_or_mock() -> Self {
        Self::mode("replay-or-mock")
    }

    /// Replays a recorded response, or else fails with the code `RECORDING_NOT_FOUND`. Always free.
    pub fn replay_or_error() -> Self {
        Self::mode("replay-or-error")
    }

    /// Replays a recorded response, or else executes the request.
    pub fn replay_or_live() -> Self {
        Self::mode("replay-or-live")
    }

    /// Replays a recorded response, or else executes the request and records its response.
    pub fn replay_or_record() -> Self {
        Self::mode("replay-or-record")
    }

    /// Returns a well-formed placeholder immediately. Always free.
    pub fn mock() -> Self {
        Self::mode("mock")
    }

    /// Matches recordings by the gateway's standard rule.
    pub fn matching_standard(mut self) -> Self {
        self.matching = Matching::Standard;
        self
    }

    /// Matches recordings of which every field is the same.
    pub fn matching_strictly(mut self) -> Self {
        self.matching = Matching::Strict;
        self
    }

    /// Matches recordings of which these fields are the same.
    pub fn matching_fields(mut self, fields: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.matching = Matching::Fields(fields.into_iter().map(Into::into).collect());
        self
    }

    /// Replays the recording with this id (`rec_…`).
    pub fn recording(mut self, id: impl Into<String>) -> Self {
        self.matching = Matching::Pinned(id.into());
        self
    }

    pub(crate) fn headers(&self) -> Result<HeaderMap, Error> {
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
        let message = format!("{text:?} is not allowed in a header; use the names of fields, or the id of a recording");
        Error::new(ErrorKind::Configuration, message).with_parameter("replay")
    })
}
