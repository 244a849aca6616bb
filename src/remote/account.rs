//! The caller's account at the gateway: money, and what was asked.

use futures_util::{Stream, stream};
use reqwest::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::Remote;
use super::lenient::{odd_is_default, odd_is_no_number};
use super::transport::{Payload, segment};
use super::{clean, json};
use crate::backend::Cost;
use crate::error::Error;

/// What [`Remote::account`] gives: questions about the account. Only the gateway answers them.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a>(pub(super) &'a Remote);

/// The money of an account.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Balance {
    /// Whether it is paid before or after.
    pub billing: Billed,
    /// What is left; `None` where nothing limits it.
    pub available: Option<Cost>,
}

/// When an account is paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Billed {
    /// Before use.
    Prepaid,
    /// After use.
    Postpaid,
    /// In a way that this version does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

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
    fn name(self) -> &'static str {
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
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct RequestPage {
    /// The requests.
    #[serde(rename = "data")]
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
        self.requests.last().map(|last| Page::After(&last.id))
    }

    /// The page with newer requests; `None` at the beginning.
    pub fn previous(&self) -> Option<Page<'_>> {
        self.previous_page_url.as_ref()?;
        self.requests.first().map(|first| Page::Before(&first.id))
    }
}

#[derive(Deserialize)]
struct WireBalance {
    #[serde(default, deserialize_with = "odd_is_default")]
    billing_type: Billed,
    #[serde(default, deserialize_with = "odd_is_default")]
    available: Option<Amount>,
}

#[derive(Deserialize)]
struct Amount {
    #[serde(default, deserialize_with = "odd_is_no_number")]
    amount: Option<f64>,
    #[serde(default, deserialize_with = "odd_is_default")]
    currency: Option<String>,
}

impl<'a> Account<'a> {
    /// What is left.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the server is not the gateway.
    pub async fn balance(&self) -> Result<Balance, Error> {
        let wire: WireBalance = self.0.ask(self.0.transport.native(&["balance"])?).await?;
        let available = wire.available.and_then(|available| {
            let currency = available.currency.unwrap_or_else(|| "USD".into()).to_ascii_uppercase();
            Some(Cost { amount: available.amount?, currency })
        });
        Ok(Balance { billing: wire.billing_type, available })
    }

    /// One request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is none of this id.
    pub async fn request(&self, id: &str) -> Result<RequestRecord, Error> {
        let record = self.0.ask(self.0.transport.native(&["requests", segment(id)?])?).await?;
        Ok(self.clean(record))
    }

    /// The record without the secrets that a message may quote: it gets printed.
    fn clean(&self, mut record: RequestRecord) -> RequestRecord {
        let secrets = &self.0.transport.secrets;
        let clean = |text: Option<String>| text.map(|text| clean::message(&text, secrets));
        record.error_message = clean(record.error_message);
        record.error_code = clean(record.error_code);
        record
    }

    /// Deletes what is stored of a request: its prompt and its images.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is none of this id.
    pub async fn purge(&self, id: &str) -> Result<(), Error> {
        let url = self.0.transport.native(&["requests", segment(id)?, "payloads"])?;
        let request = self.0.transport.request(Method::DELETE, url);
        self.0.transport.ask(&request, &Payload::Nothing, None, json::ignore).await
    }

    /// All requests that `filter` lets through, newest first, fetched as they are read.
    pub fn requests(&self, filter: RequestFilter) -> impl Stream<Item = Result<RequestRecord, Error>> + Send + 'a {
        let account = *self;
        let start = Reader { ready: Vec::new().into_iter(), after: None, done: false };
        stream::try_unfold((start, filter), move |(mut reader, filter)| async move {
            loop {
                if let Some(record) = reader.ready.next() {
                    return Ok(Some((record, (reader, filter))));
                }
                if reader.done {
                    return Ok(None);
                }
                let place = reader.after.as_deref().map_or(Page::First, Page::After);
                let page = account.page(&filter, place, false).await?;
                let next = page.next().and_then(|_| page.requests.last()).map(|last| last.id.clone());
                // A server that names the same place again would be read for ever.
                reader.done = next.is_none() || next == reader.after;
                reader.after = next;
                reader.ready = page.requests.into_iter();
            }
        })
    }

    /// One page of the list, with the totals where `summary` asks for them.
    ///
    /// # Errors
    /// Where the service cannot be reached or refuses.
    pub async fn page(&self, filter: &RequestFilter, page: Page<'_>, summary: bool) -> Result<RequestPage, Error> {
        let (after, before) = match page {
            Page::First => (None, None),
            Page::After(id) => (Some(id), None),
            Page::Before(id) => (None, Some(id)),
        };
        let RequestFilter { created_after, created_before, key_id, status, page_size } = filter;
        let page_size = page_size.map(|size| size.clamp(1, 100).to_string());
        let mut url = self.0.transport.native(&["requests"])?;
        {
            let mut query = url.query_pairs_mut();
            for (name, value) in [
                ("limit", page_size.as_deref()),
                ("starting_after", after),
                ("ending_before", before),
                ("created_after", created_after.as_deref()),
                ("created_before", created_before.as_deref()),
                ("key_id", key_id.as_deref()),
                ("status", status.map(RequestStatus::name)),
                ("summary", summary.then_some("true")),
            ] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
        }
        let mut page: RequestPage = self.0.ask(url).await?;
        page.requests = page.requests.into_iter().map(|record| self.clean(record)).collect();
        Ok(page)
    }
}

/// Where a reader of the whole list stands.
struct Reader {
    ready: std::vec::IntoIter<RequestRecord>,
    after: Option<String>,
    done: bool,
}
