//! The account of the mock gateway: the requests that it received and the remaining balance.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::http::{Reply, Request, query};

/// The one API key that the mock gateway accepts.
pub(super) const KEY: &str = "lmnfl_mock.secret";
/// The balance before the first request, in micro-dollars.
const FUNDS: u64 = 100_000_000;

/// An image request that the mock gateway received.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// The id that the gateway assigned, `req_…`.
    pub id: String,
    /// `generations` or `edits`.
    pub endpoint: String,
    /// The query string of the URL, without the `?`; empty if there is none.
    pub query: String,
    /// The fields of the JSON body or form. Form fields are strings, except `n` and `output_compression`.
    pub fields: Map<String, Value>,
    /// The field names of the uploaded files.
    pub files: Vec<String>,
    /// Whether the client has deleted the stored prompt and images of this request.
    pub purged: bool,
}

/// An image request and how it ended.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) received: Received,
    created: SystemTime,
    status: &'static str,
    /// The price in micro-dollars.
    micros: u64,
    /// The error object of the response body.
    error: Value,
}

impl Entry {
    pub(super) fn new(received: Received) -> Self {
        Self { received, created: SystemTime::now(), status: "processing", micros: 0, error: Value::Null }
    }

    /// Records the response to a request that was executed, or rejected with an error response.
    pub(super) fn finish(&mut self, result: &Result<Reply, Reply>) {
        match result {
            Ok(reply) => (self.status, self.micros) = ("completed", reply.micros),
            Err(reply) => {
                self.status = if reply.status < 500 { "rejected" } else { "upstream_failure" };
                let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                self.error = body.get("error").cloned().unwrap_or_default();
            }
        }
    }

    /// Returns what the account reports about this request.
    pub(super) fn record(&self) -> Value {
        let Received { id, endpoint, fields, .. } = &self.received;
        json!({
            "id": id, "object": "request", "status": self.status, "cost": self.micros as f64 / 1e6, "currency": "USD",
            "created_at": humantime::format_rfc3339(self.created).to_string(), "model": fields.get("model"),
            "modality": "image", "endpoint": format!("images/{endpoint}"), "user": fields.get("user"),
            "error_code": self.error.get("code"), "error_message": self.error.get("message"),
        })
    }
}

pub(super) fn balance(entries: &[Entry]) -> Value {
    let spent: u64 = entries.iter().map(|entry| entry.micros).sum();
    let available = json!({ "amount": (FUNDS as f64 - spent as f64) / 1e6, "currency": "usd" });
    json!({ "object": "balance", "billing_type": "prepaid", "available": available })
}

pub(super) fn find<'a>(entries: &'a mut [Entry], id: &str) -> Option<&'a mut Entry> {
    entries.iter_mut().find(|entry| entry.received.id == id)
}

/// Lists the requests newest first: the first page, or the page that starts after a request.
pub(super) fn list(request: &Request, entries: &[Entry]) -> Reply {
    let (mut limit, mut end) = (Some(20), Some(entries.len()));
    for (name, value) in query(request) {
        match &*name {
            "limit" => limit = value.parse().ok().filter(|limit| (1..=100).contains(limit)),
            "starting_after" => end = entries.iter().position(|entry| entry.received.id == value),
            _ => return Reply::invalid(&format!("the mock gateway does not support the parameter `{name}`")),
        }
    }
    let (Some(limit), Some(end)) = (limit, end) else {
        return Reply::invalid("`limit` must be 1 to 100, and `starting_after` must be the id of a request");
    };
    let start = end.saturating_sub(limit);
    let page = entries.get(start..end).unwrap_or_default();
    let next = page.first().filter(|_| start > 0);
    let next = next.map(|entry| format!("/v1/requests?limit={limit}&starting_after={}", entry.received.id));
    let data: Vec<Value> = page.iter().rev().map(Entry::record).collect();
    Reply::json(200, &json!({ "object": "list", "data": data, "next_page_url": next }))
}
