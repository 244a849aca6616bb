//! What the gateway remembers of requests, and which of them to ask for.

use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::lenient::{odd_is_default, odd_is_no_number, readable};

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestStatus {
    /// With a result.
    Completed,
    /// Not begun.
    Pending,
    /// Being done.
    Processing,
    /// A provider failed.
    UpstreamFailure,
    /// The gateway refused it.
    Rejected,
    /// The caller went away.
    Cancelled,
    /// In a way that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl RequestStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::UpstreamFailure => "upstream_failure",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

/// What the gateway remembers of a request. A field that it does not tell is `None`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
#[serde(default)]
pub struct RequestRecord {
    /// Its id, `req_…`.
    #[serde(deserialize_with = "odd_is_default")]
    pub id: String,
    /// When it came, as ISO 8601.
    #[serde(deserialize_with = "odd_is_default")]
    pub created_at: Option<String>,
    /// The model asked for.
    #[serde(deserialize_with = "odd_is_default")]
    pub model: Option<String>,
    /// What was made, such as `image`.
    #[serde(deserialize_with = "odd_is_default")]
    pub modality: Option<String>,
    /// What was called.
    #[serde(deserialize_with = "odd_is_default")]
    pub endpoint: Option<String>,
    /// How it ended.
    #[serde(deserialize_with = "odd_is_default")]
    pub status: RequestStatus,
    /// What it cost, in units of `currency`.
    #[serde(deserialize_with = "odd_is_no_number")]
    pub cost: Option<f64>,
    /// The currency's three letters.
    #[serde(deserialize_with = "odd_is_default")]
    pub currency: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(deserialize_with = "odd_is_no_number")]
    pub duration_ms: Option<f64>,
    /// The key it came with.
    #[serde(deserialize_with = "odd_is_default")]
    pub key_id: Option<String>,
    /// What went wrong, as a code.
    #[serde(deserialize_with = "odd_is_default")]
    pub error_code: Option<String>,
    /// What went wrong, in words; cut where it is long, without keys and signatures.
    #[serde(deserialize_with = "odd_is_default")]
    pub error_message: Option<String>,
    /// The caller's session.
    #[serde(deserialize_with = "odd_is_default")]
    pub session_id: Option<String>,
    /// The caller's trace.
    #[serde(deserialize_with = "odd_is_default")]
    pub trace_id: Option<String>,
    /// The caller's own name for the end user.
    #[serde(deserialize_with = "odd_is_default")]
    pub user: Option<String>,
    /// The request's size in bytes.
    #[serde(deserialize_with = "odd_is_default")]
    pub request_size_bytes: Option<u64>,
    /// The answer's size in bytes.
    #[serde(deserialize_with = "odd_is_default")]
    pub response_size_bytes: Option<u64>,
}

impl Default for RequestRecord {
    fn default() -> Self {
        Self {
            id: String::new(),
            created_at: None,
            model: None,
            modality: None,
            endpoint: None,
            status: RequestStatus::Unknown,
            cost: None,
            currency: None,
            duration_ms: None,
            key_id: None,
            error_code: None,
            error_message: None,
            session_id: None,
            trace_id: None,
            user: None,
            request_size_bytes: None,
            response_size_bytes: None,
        }
    }
}

/// Which requests to list. A field that is `None` does not narrow the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestFilter {
    /// From this time on, as ISO 8601.
    pub created_after: Option<String>,
    /// Up to this time, as ISO 8601.
    pub created_before: Option<String>,
    /// Those of one key.
    pub key_id: Option<String>,
    /// Those that ended so.
    pub status: Option<RequestStatus>,
    /// How many to fetch at a time, 1 to 100.
    pub page_size: Option<u32>,
}

/// A part of the list of requests, newest first.
#[derive(Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct RequestPage {
    /// The requests.
    #[serde(rename = "data", deserialize_with = "readable")]
    pub requests: Vec<RequestRecord>,
    /// Totals over the whole list, as they came: their form is not documented.
    #[serde(default)]
    pub summary: Option<Value>,
    /// Set where older ones follow. The address is never called: it could lead the key elsewhere.
    #[serde(default)]
    next_page_url: Option<IgnoredAny>,
    /// Set where newer ones precede.
    #[serde(default)]
    previous_page_url: Option<IgnoredAny>,
}

/// Of the totals only the names: it gets printed, and what they hold is not known.
impl fmt::Debug for RequestPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary: Option<Vec<_>> = self.summary.as_ref().and_then(Value::as_object).map(|all| all.keys().collect());
        f.debug_struct("RequestPage")
            .field("requests", &self.requests)
            .field("summary", &summary)
            .field("next", &self.next())
            .field("previous", &self.previous())
            .finish()
    }
}

/// Which page of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Page<'a> {
    /// The newest.
    #[default]
    First,
    /// The requests older than the one of this id.
    After(&'a str),
    /// The requests newer than the one of this id.
    Before(&'a str),
}

impl RequestPage {
    /// The page with older requests; `None` at the end.
    pub fn next(&self) -> Option<Page<'_>> {
        self.next_page_url.as_ref()?;
        self.ids().next_back().map(Page::After)
    }

    /// The page with newer requests; `None` at the beginning.
    pub fn previous(&self) -> Option<Page<'_>> {
        self.previous_page_url.as_ref()?;
        self.ids().next().map(Page::Before)
    }

    /// Whether nothing older follows.
    pub(super) fn is_last(&self) -> bool {
        self.next_page_url.is_none()
    }

    fn ids(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.requests.iter().map(|record| &*record.id).filter(|id| !id.is_empty())
    }
}
