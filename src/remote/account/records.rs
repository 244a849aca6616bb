//! The gateway's records of past requests, and filters for them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::Cost;
use crate::remote::redact;
use crate::remote::response::lenient;
use crate::remote::secrets::Secrets;

/// The status of a past request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestStatus {
    /// It succeeded.
    Completed,
    /// It has not been started.
    Pending,
    /// It is being executed.
    Processing,
    /// A provider failed.
    UpstreamFailure,
    /// The gateway rejected it.
    Rejected,
    /// The caller closed the connection.
    Cancelled,
    /// A status that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A past request. A field that the gateway does not report is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// The id, `req_…`.
    pub id: String,
    /// When it was received, in ISO 8601.
    pub created_at: Option<String>,
    /// The requested model.
    pub model: Option<String>,
    /// The kind of output, such as `image`.
    pub modality: Option<String>,
    /// The endpoint that was called.
    pub endpoint: Option<String>,
    /// The status.
    pub status: RequestStatus,
    /// The cost.
    pub cost: Option<Cost>,
    /// The duration in milliseconds.
    pub duration_ms: Option<f64>,
    /// The id of the API key that was used.
    pub key_id: Option<String>,
    /// The error code, if it failed.
    pub error_code: Option<String>,
    /// The error message, if it failed; truncated if it is long, without keys and signatures.
    pub error_message: Option<String>,
    /// The caller's session.
    pub session_id: Option<String>,
    /// The caller's trace.
    pub trace_id: Option<String>,
    /// The caller's identifier of the end user.
    pub user: Option<String>,
    /// The size of the request in bytes.
    pub request_size_bytes: Option<u64>,
    /// The size of the response in bytes.
    pub response_size_bytes: Option<u64>,
}

impl RequestRecord {
    /// Reads a record. Fields of an unexpected type are ignored, and messages are redacted, because records are printed.
    pub(crate) fn read(record: &Value, secrets: &Secrets) -> Self {
        let text = |name| lenient::text(record, name).map(str::to_owned);
        let redacted = |name| lenient::text(record, name).map(|text| redact::message(text, secrets));
        let number = |name: &str| record.get(name).and_then(lenient::number);
        let currency = || redacted("currency").unwrap_or_else(|| "USD".into());
        Self {
            id: text("id").unwrap_or_default(),
            created_at: text("created_at"),
            model: text("model"),
            modality: text("modality"),
            endpoint: text("endpoint"),
            status: record.get("status").and_then(|status| RequestStatus::deserialize(status).ok()).unwrap_or_default(),
            cost: number("cost").filter(|amount| *amount >= 0.0).map(|amount| Cost::new(amount, currency())),
            duration_ms: number("duration_ms"),
            key_id: text("key_id"),
            error_code: redacted("error_code"),
            error_message: redacted("error_message"),
            session_id: text("session_id"),
            trace_id: text("trace_id"),
            user: text("user"),
            request_size_bytes: lenient::integer(record, "request_size_bytes"),
            response_size_bytes: lenient::integer(record, "response_size_bytes"),
        }
    }
}

/// Selects which requests are listed. A field that is `None` selects all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestFilter {
    /// The earliest time, in ISO 8601.
    pub created_after: Option<String>,
    /// The latest time, in ISO 8601.
    pub created_before: Option<String>,
    /// The id of the API key.
    pub key_id: Option<String>,
    /// The status.
    pub status: Option<RequestStatus>,
    /// How many records to fetch per page, 1 to 100.
    pub page_size: Option<u32>,
}

/// A page of the list of requests, newest first.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct RequestPage {
    /// The requests.
    pub requests: Vec<RequestRecord>,
    /// Totals over the whole list, unmodified: their structure is not documented.
    pub summary: Option<Value>,
    pub(crate) has_next: bool,
    pub(crate) has_previous: bool,
}

impl RequestPage {
    /// Reads a page, or returns `None` if it contains no list. Items of another type are ignored.
    pub(crate) fn read(page: &Value, secrets: &Secrets) -> Option<Self> {
        let requests = page.get("data")?.as_array()?.iter().filter(|record| record.is_object());
        // The URLs of other pages are never requested, because they could send the key elsewhere.
        let is_set = |name| page.get(name).is_some_and(|url| !url.is_null());
        Some(Self {
            requests: requests.map(|record| RequestRecord::read(record, secrets)).collect(),
            summary: page.get("summary").filter(|summary| !summary.is_null()).cloned(),
            has_next: is_set("next_page_url"),
            has_previous: is_set("previous_page_url"),
        })
    }

    /// Returns the page with older requests; `None` at the end of the list.
    pub fn next(&self) -> Option<Page<'_>> {
        self.ids().next_back().filter(|_| self.has_next).map(Page::After)
    }

    /// Returns the page with newer requests; `None` at the start of the list.
    pub fn previous(&self) -> Option<Page<'_>> {
        self.ids().next().filter(|_| self.has_previous).map(Page::Before)
    }

    fn ids(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.requests.iter().map(|record| &*record.id).filter(|id| !id.is_empty())
    }
}

/// Prints only the names of the totals, because their values are not documented and may be secret.
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

/// Selects a page of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Page<'a> {
    /// The newest requests.
    #[default]
    First,
    /// The requests older than the one with this id.
    After(&'a str),
    /// The requests newer than the one with this id.
    Before(&'a str),
}
