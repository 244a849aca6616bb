//! What the account tells: the requests that came, and the money that is left.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{KEY, Received, refusal};
use crate::testing::http::{Answer, Request};

/// What there is before the first request, in millionths of a dollar.
const FUNDS: u64 = 100_000_000;
/// How many requests a page has, where nobody says.
const PAGE: usize = 20;

/// A request, and what became of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) received: Received,
    created: String,
    began: Instant,
    trace: Option<String>,
    size: usize,
    end: Option<(Outcome, Duration)>,
}

/// How a request ended.
#[derive(Debug)]
pub(super) struct Outcome {
    status: &'static str,
    /// In millionths of a dollar.
    micros: u64,
    error: Value,
}

impl Outcome {
    pub(super) fn completed(micros: u64) -> Self {
        Self { status: "completed", micros, error: Value::Null }
    }

    pub(super) fn cancelled() -> Self {
        Self { status: "cancelled", micros: 0, error: Value::Null }
    }

    pub(super) fn of_refusal(answer: &Answer) -> Self {
        let status = if answer.status < 500 { "rejected" } else { "upstream_failure" };
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        Self { status, micros: 0, error: body.get("error").cloned().unwrap_or_default() }
    }
}

impl Entry {
    pub(super) fn new(received: Received, request: &Request) -> Self {
        let trace = request.header("traceparent").and_then(|trace| trace.split('-').nth(1));
        Self {
            received,
            created: iso_8601(SystemTime::now()),
            began: Instant::now(),
            trace: trace.map(str::to_owned),
            size: request.size(),
            end: None,
        }
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        self.end = Some((outcome, self.began.elapsed()));
    }

    fn id(&self) -> &str {
        &self.received.id
    }

    fn status(&self) -> &'static str {
        self.end.as_ref().map_or("processing", |(outcome, _)| outcome.status)
    }

    fn micros(&self) -> u64 {
        self.end.as_ref().map_or(0, |(outcome, _)| outcome.micros)
    }

    fn record(&self) -> Value {
        let error = self.end.as_ref().map(|(outcome, _)| &outcome.error);
        let error = |field: &str| error.and_then(|error| error.get(field));
        json!({
            "id": self.id(), "object": "request", "created_at": self.created,
            "model": self.received.fields.get("model"), "modality": "image",
            "endpoint": format!("images/{}", self.received.endpoint), "status": self.status(),
            "cost": self.micros() as f64 / 1e6, "currency": "USD",
            "duration_ms": self.end.as_ref().map(|(_, duration)| duration.as_secs_f64() * 1e3),
            "key_id": key_id(), "error_code": error("code"), "error_message": error("message"), "session_id": null,
            "trace_id": self.trace, "user": self.received.fields.get("user"), "request_size_bytes": self.size,
            "response_size_bytes": null
        })
    }

    /// Whether the filter of a list lets it through.
    fn is_asked_for(&self, request: &Request) -> bool {
        let allows = |name, holds: &dyn Fn(&str) -> bool| request.parameter(name).is_none_or(|value| holds(&value));
        allows("status", &|status| status == self.status())
            && allows("key_id", &|id| Some(id) == key_id())
            // Dates of this form are in the order of their text.
            && allows("created_after", &|date| *date <= *self.created)
            && allows("created_before", &|date| *date >= *self.created)
    }
}

/// The part of the key that is no secret.
fn key_id() -> Option<&'static str> {
    KEY.strip_prefix("lmnfl_")?.split('.').next()
}

/// The answer to a question about the account, if it is one.
pub(super) fn answer(request: &Request, entries: &mut [Entry]) -> Option<Answer> {
    let path: Vec<&str> = request.path.strip_prefix("/v1/")?.split('/').collect();
    match (request.method.as_str(), path.as_slice()) {
        ("GET", ["balance"]) => Some(balance(entries)),
        ("GET", ["requests"]) => Some(list(request, entries)),
        ("GET", ["requests", id]) => Some(one(id, entries, |entry| entry.record())),
        ("DELETE", ["requests", id, "payloads"]) => Some(one(id, entries, |entry| {
            entry.received.purged = true;
            json!({ "id": id, "object": "request", "deleted": true })
        })),
        _ => None,
    }
}

fn balance(entries: &[Entry]) -> Answer {
    let spent: u64 = entries.iter().map(Entry::micros).sum();
    let available = json!({ "amount": (FUNDS as f64 - spent as f64) / 1e6, "currency": "usd" });
    Answer::json(200, &json!({ "object": "balance", "billing_type": "prepaid", "available": available }))
}

fn one(id: &str, entries: &mut [Entry], tell: impl FnOnce(&mut Entry) -> Value) -> Answer {
    match entries.iter_mut().find(|entry| entry.id() == id) {
        Some(entry) => Answer::json(200, &tell(entry)),
        None => refusal(404, "NOT_FOUND", &format!("there is no request {id}")),
    }
}

/// Newest first, up to or from behind the request that is named.
fn list(request: &Request, entries: &[Entry]) -> Answer {
    let limit = request.parameter("limit").map_or(Some(PAGE), |limit| limit.parse().ok());
    let Some(limit) = limit.filter(|limit| (1..=100).contains(limit)) else {
        return refusal(400, "INVALID_REQUEST", "limit must be 1 to 100");
    };
    let asked: Vec<(usize, &Entry)> =
        entries.iter().enumerate().rev().filter(|(_, entry)| entry.is_asked_for(request)).collect();
    let place = |name: &str| match request.parameter(name) {
        Some(id) => entries.iter().position(|entry| entry.id() == id).map(Some).ok_or(()),
        None => Ok(None),
    };
    let (Ok(after), Ok(before)) = (place("starting_after"), place("ending_before")) else {
        return refusal(400, "INVALID_REQUEST", "starting_after or ending_before names no request");
    };
    let newer_than = |place: usize| asked.iter().filter(|(at, _)| *at > place).count();
    let not_older_than = |place: usize| asked.iter().filter(|(at, _)| *at >= place).count();
    let last = before.map_or(asked.len(), newer_than);
    let start = match (after, before) {
        (Some(after), _) => not_older_than(after),
        (None, Some(_)) => last.saturating_sub(limit),
        (None, None) => 0,
    };
    let end = last.min(start + limit);
    let page = asked.get(start..end).unwrap_or_default();
    let link = |name: &str, entry: Option<&(usize, &Entry)>, there: bool| {
        entry.filter(|_| there).map(|(_, entry)| format!("{}?limit={limit}&{name}={}", request.path, entry.id()))
    };
    let next = link("starting_after", page.last(), end < asked.len());
    let previous = link("ending_before", page.first(), start > 0);
    let data: Vec<Value> = page.iter().map(|(_, entry)| entry.record()).collect();
    let summary = request.parameter("summary").filter(|summary| summary == "true").map(|_| {
        let micros: u64 = asked.iter().map(|(_, entry)| entry.micros()).sum();
        json!({ "requests": asked.len(), "total_cost": micros as f64 / 1e6, "currency": "usd" })
    });
    Answer::json(
        200,
        &json!({
            "object": "list", "data": data, "summary": summary, "next_page_url": next, "previous_page_url": previous
        }),
    )
}

/// To the second, in UTC.
fn iso_8601(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = httpdate::fmt_http_date(time);
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, clock, _] = words.as_slice() else { return date };
    let month = MONTHS.iter().position(|name| name == month).map_or(0, |index| index + 1);
    format!("{year}-{month:02}-{day}T{clock}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_iso_8601() {
        // `date -u -d @784111777` is Sun Nov 6 08:49:37 UTC 1994.
        assert_eq!(iso_8601(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)), "1994-11-06T08:49:37Z");
    }
}
