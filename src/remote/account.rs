//! The caller's account at the gateway: money, and what was asked.

use std::collections::HashSet;

use futures_util::{Stream, stream};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Remote;
use super::records::{Page, RequestFilter, RequestPage, RequestRecord, RequestStatus};
use super::transport::{Payload, segment};
use super::{clean, json, lenient};
use crate::backend::Cost;
use crate::error::{Error, ErrorKind};

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

impl<'a> Account<'a> {
    /// What is left.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the server is not the gateway, and [`ErrorKind::Upstream`] or
    /// [`ErrorKind::InvalidResponse`] where the amount is not known or cannot be read.
    pub async fn balance(&self) -> Result<Balance, Error> {
        let balance: Map<String, Value> = self.0.ask(self.0.transport.native(&["balance"])?).await?;
        let billing = balance.get("billing_type").and_then(|billing| Billed::deserialize(billing).ok());
        let billing = billing.unwrap_or_default();
        let available = balance.get("available").unwrap_or(&Value::Null);
        let amount = available.get("amount");
        let currency = available.get("currency").and_then(Value::as_str).unwrap_or("USD").to_ascii_uppercase();
        let available = match amount.and_then(lenient::number) {
            Some(amount) => Some(Cost { amount, currency }),
            None if billing == Billed::Postpaid && amount.is_some_and(Value::is_null) => None,
            // The vendor's word for a balance that it cannot tell at the moment.
            None if amount.is_some_and(Value::is_null) => {
                return Err(Error::new(ErrorKind::Upstream, "the balance is not known at the moment; ask again later"));
            }
            None => return Err(Error::new(ErrorKind::InvalidResponse, "the balance has no amount that can be read")),
        };
        Ok(Balance { billing, available })
    }

    /// One request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is none of this id.
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
    /// [`ErrorKind::NotFound`] where there is none of this id.
    pub async fn purge(&self, id: &str) -> Result<(), Error> {
        let url = self.0.transport.native(&["requests", segment(id)?, "payloads"])?;
        let request = self.0.transport.request(Method::DELETE, url);
        self.0.transport.ask(&request, &Payload::Nothing, None, json::ignore).await
    }

    /// All requests that `filter` lets through, newest first, fetched as they are read. Where it goes on from no
    /// place, or leads back to what was read already, it ends in [`ErrorKind::InvalidResponse`].
    pub fn requests(&self, filter: RequestFilter) -> impl Stream<Item = Result<RequestRecord, Error>> + Send + 'a {
        let account = *self;
        let start = Reader { ready: Vec::new().into_iter(), after: None, seen: HashSet::new(), done: false };
        stream::try_unfold((start, filter), move |(mut reader, filter)| async move {
            loop {
                if let Some(record) = reader.ready.next() {
                    return Ok(Some((record, (reader, filter))));
                }
                if reader.done {
                    return Ok(None);
                }
                let place = match &reader.after {
                    // A server that names a place again would be read for ever.
                    Some(after) if after.is_empty() || !reader.seen.insert(after.clone()) => return Err(lost_place()),
                    Some(after) => Page::After(after),
                    None => Page::First,
                };
                let page = account.page(&filter, place, false).await?;
                reader.done = page.is_last();
                reader.after = page.requests.last().map(|last| last.id.clone());
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
    /// The last request that was read; without an id, if that could not be read.
    after: Option<String>,
    /// The places that were asked for.
    seen: HashSet<String>,
    done: bool,
}

fn lost_place() -> Error {
    let message = "the list of requests goes on, but from no place, or from one that was read already";
    Error::new(ErrorKind::InvalidResponse, message)
}
