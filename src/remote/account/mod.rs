//! The caller's account at the gateway: balance and past requests.

pub(crate) mod models;
pub(crate) mod records;

use std::collections::HashSet;

use futures_util::{Stream, stream};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::records::{Page, RequestFilter, RequestPage, RequestRecord};
use super::http::transport::{Payload, Transport, segment};
use super::response::{json, lenient};
use crate::backend::Cost;
use crate::error::{Error, ErrorKind};

/// Access to the account; see [`Remote::account`](super::Remote::account). Only the gateway supports it.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a>(pub(crate) &'a Transport);

/// The balance of an account.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Balance {
    /// How the account is billed.
    pub billing: Billed,
    /// The available amount; `None` if it is not limited.
    pub available: Option<Cost>,
}

/// How an account is billed.
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
    /// Returns the balance.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the server is not the gateway, [`ErrorKind::Upstream`] if the gateway does not know the
    /// balance at the moment, and [`ErrorKind::InvalidResponse`] if the amount cannot be read.
    pub async fn balance(&self) -> Result<Balance, Error> {
        let balance: Value = self.get(self.0.native(&["balance"])?).await?;
        let billing = balance.get("billing_type").and_then(|billing| Billed::deserialize(billing).ok());
        let billing = billing.unwrap_or_default();
        let available = balance.get("available").unwrap_or(&Value::Null);
        let currency = lenient::text(available, "currency").unwrap_or("USD").to_ascii_uppercase();
        let available = match available.get("amount") {
            Some(Value::Null) if billing == Billed::Postpaid => None,
            // The gateway documents null for a balance that it does not know at the moment.
            Some(Value::Null) => {
                let message = "the gateway does not know the balance at the moment; request it again later";
                return Err(Error::new(ErrorKind::Upstream, message));
            }
            amount => {
                let amount = amount.and_then(lenient::number).ok_or_else(|| {
                    Error::new(ErrorKind::InvalidResponse, "the response contains no amount for the balance")
                })?;
                Some(Cost::new(amount, currency))
            }
        };
        Ok(Balance { billing, available })
    }

    /// Returns one past request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no request with this id.
    pub async fn request(&self, id: &str) -> Result<RequestRecord, Error> {
        let record = self.get(self.0.native(&["requests", segment(id)?])?).await?;
        Ok(RequestRecord::read(&record, &self.0.secrets))
    }

    /// Deletes the stored prompt and images of a past request.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no request with this id.
    pub async fn purge(&self, id: &str) -> Result<(), Error> {
        let url = self.0.native(&["requests", segment(id)?, "payloads"])?;
        self.0.send_free(&self.0.request(Method::DELETE, url), &Payload::Empty, None, json::ignore).await
    }

    /// Returns all past requests that match `filter`, newest first. Pages are fetched as the stream is read.
    ///
    /// The stream ends with [`ErrorKind::InvalidResponse`] if the gateway reports another page but no valid position of it.
    pub fn requests(&self, filter: RequestFilter) -> impl Stream<Item = Result<RequestRecord, Error>> + Send + 'a {
        let start =
            Pages { account: *self, filter, fetched: Vec::new().into_iter(), last_id: None, seen: HashSet::new() };
        stream::try_unfold((start, true), |(mut pages, mut has_next)| async move {
            loop {
                if let Some(record) = pages.fetched.next() {
                    return Ok(Some((record, (pages, has_next))));
                }
                if !has_next {
                    return Ok(None);
                }
                has_next = pages.fetch_next().await?;
            }
        })
    }

    /// Returns one page of the list of past requests, with totals over the whole list if `summary` is true.
    ///
    /// # Errors
    /// If the service cannot be reached or rejects the request.
    pub async fn page(&self, filter: &RequestFilter, page: Page<'_>, summary: bool) -> Result<RequestPage, Error> {
        let (after, before) = match page {
            Page::First => (None, None),
            Page::After(id) => (Some(id), None),
            Page::Before(id) => (None, Some(id)),
        };
        let RequestFilter { created_after, created_before, key_id, status, page_size } = filter;
        let page_size = page_size.map(|size| size.clamp(1, 100).to_string());
        let status = status.and_then(|status| serde_json::to_value(status).ok());
        let mut url = self.0.native(&["requests"])?;
        for (name, value) in [
            ("limit", page_size.as_deref()),
            ("starting_after", after),
            ("ending_before", before),
            ("created_after", created_after.as_deref()),
            ("created_before", created_before.as_deref()),
            ("key_id", key_id.as_deref()),
            ("status", status.as_ref().and_then(Value::as_str)),
            ("summary", summary.then_some("true")),
        ] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let page = self.get(url).await?;
        let undocumented = || Error::new(ErrorKind::InvalidResponse, "the response contains no list of requests");
        RequestPage::read(&page, &self.0.secrets).ok_or_else(undocumented)
    }

    async fn get(&self, url: Url) -> Result<Value, Error> {
        let object: Map<String, Value> = self.0.get_json(url, None).await?;
        Ok(object.into())
    }
}

/// The position of a stream of past requests.
struct Pages<'a> {
    account: Account<'a>,
    filter: RequestFilter,
    fetched: std::vec::IntoIter<RequestRecord>,
    /// The id of the last record that was fetched.
    last_id: Option<String>,
    /// The ids after which pages were fetched.
    seen: HashSet<String>,
}

impl Pages<'_> {
    /// Fetches the next page, and returns whether another one follows.
    async fn fetch_next(&mut self) -> Result<bool, Error> {
        let page = match &self.last_id {
            // A server that repeats a position would be read forever.
            Some(id) if id.is_empty() || !self.seen.insert(id.clone()) => {
                let message = "the list of requests continues without an id, or with one that was read before";
                return Err(Error::new(ErrorKind::InvalidResponse, message));
            }
            Some(id) => Page::After(id),
            None => Page::First,
        };
        let page = self.account.page(&self.filter, page, false).await?;
        self.last_id = page.requests.last().map(|last| last.id.clone());
        self.fetched = page.requests.into_iter();
        Ok(page.has_next)
    }
}
