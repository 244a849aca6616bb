//! The meaning of a failed attempt: which error it is, and whether the request was executed.

use std::iter;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{StatusCode, Url};
use serde_json::Value;

use super::body::PartialBody;
use super::classify::{self, Meaning};
use super::explanation::Explanation;
use super::{headers, lenient, retry_after};
use crate::error::{Error, ErrorKind};
use crate::remote::redact;
use crate::remote::secrets::Secrets;

/// The header in which fal sends the code of an error.
const FAL_ERROR_TYPE: &str = "x-fal-error-type";
/// The header in which fal sends the id of a job.
const FAL_REQUEST_ID: &str = "x-fal-request-id";
/// The text with which LiteLLM reports the number of its retries in an error.
const RETRIES: &str = "LiteLLM Retried: ";

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) verdict: Verdict,
}

/// Whether a retry can succeed, and what it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request was not sent, and cannot be sent.
    NotSent,
    /// The same request would fail again, or its result is lost.
    Final,
    /// The request was not executed, and may be executed next time.
    NotExecuted,
    /// The request may have been executed and billed.
    Ambiguous,
}

impl Failure {
    pub(crate) fn not_sent(error: Error) -> Self {
        Self { error, verdict: Verdict::NotSent }
    }

    pub(crate) fn permanent(error: Error) -> Self {
        Self { error, verdict: Verdict::Final }
    }

    /// A failure that does not show whether the service executed the request.
    pub(crate) fn ambiguous(error: Error) -> Self {
        Self { error: error.with_maybe_billed(true), verdict: Verdict::Ambiguous }
    }

    /// A successful response that cannot be used. The request was executed, and a retry would be billed again.
    pub(crate) fn unusable_response(message: impl Into<String>) -> Self {
        Self::permanent(Error::new(ErrorKind::InvalidResponse, message).with_maybe_billed(true))
    }

    /// Returns the same failure of a request that is never billed.
    pub(crate) fn free(self) -> Self {
        Self { error: self.error.with_maybe_billed(false), verdict: self.verdict }
    }

    /// Adds the service's id of the request, which may have been billed.
    pub(crate) fn with_request_id(self, id: Option<&str>, secrets: &Secrets) -> Self {
        match id {
            Some(id) => Self { error: self.error.with_request_id(redact::message(id, secrets)), ..self },
            None => self,
        }
    }

    /// A successful response without an image. Its body may contain an error.
    pub(crate) fn no_image(problem: &str, body: &Value, secrets: &Secrets) -> Self {
        let explanation = Explanation::of_json(body);
        let message = explanation.message(secrets);
        // Without a message, fields named like a code may have another meaning.
        let code = if message.is_some() { explanation.code() } else { explanation.known_code() };
        let message = message.map_or_else(|| problem.to_owned(), |message| format!("{problem}: {message}"));
        let kind = classify::kind(&explanation).unwrap_or(ErrorKind::InvalidResponse);
        let error = Error::new(kind, message).with_maybe_billed(true);
        Self::permanent(explanation.add_to(error, code, secrets))
    }

    /// A failure to send a request or to receive the head of its response.
    pub(crate) fn of_sending(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_builder() {
            let message = "the request cannot be built";
            return Self::not_sent(Error::new(ErrorKind::Configuration, message).with_source(error));
        }
        if error.is_redirect() {
            let message = "the service redirects too often; check the base URL";
            return Self::permanent(Error::new(ErrorKind::Configuration, message).with_source(error));
        }
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
        if error.is_connect() {
            let message = format!("cannot connect to the service: {}", root_cause(&error));
            return Self { error: Error::new(kind, message).with_source(error), verdict: Verdict::NotExecuted };
        }
        if is_refused_stream(&error) {
            let message = "the service refused the request before processing it: it is shutting down or overloaded";
            let error = Error::new(ErrorKind::Connection, message).with_source(error);
            return Self { error, verdict: Verdict::NotExecuted };
        }
        let message = format!("the connection was lost before a response was received: {}", root_cause(&error));
        Self::ambiguous(Error::new(kind, message).with_source(error))
    }

    /// A failure while the body of a successful response was received.
    pub(crate) fn of_reading(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
        let message = format!("the connection was lost while the response was received: {}", root_cause(&error));
        Self::ambiguous(Error::new(kind, message).with_source(error))
    }

    /// A response with an error status, to a request for `url`.
    pub(crate) fn of_response(
        status: StatusCode,
        url: &Url,
        head: &HeaderMap,
        body: PartialBody,
        secrets: &Secrets,
    ) -> Self {
        let failure = match status.is_redirection() {
            true => redirect(status, url, head, secrets),
            false => rejection(status, url, head, body, secrets),
        };
        failure.with_request_id(headers::request_id(head), secrets)
    }
}

/// A redirect, which is not followed.
fn redirect(status: StatusCode, url: &Url, head: &HeaderMap, secrets: &Secrets) -> Failure {
    let target = headers::text(head, LOCATION.as_str()).and_then(|target| url.join(target).ok());
    let target =
        target.map_or_else(|| "another URL".to_owned(), |target| redact::message(&redact::url(&target), secrets));
    let message = format!(
        "the service redirects to {target}; this is not followed, because no key and no paid request may reach another URL; \
         check the base URL"
    );
    let error = Error::new(ErrorKind::Configuration, message).with_status(status.as_u16());
    // "See other" is the response to a request that was executed (RFC 9110, 15.4.4).
    Failure::permanent(error.with_maybe_billed(status == StatusCode::SEE_OTHER))
}

fn rejection(status: StatusCode, url: &Url, head: &HeaderMap, body: PartialBody, secrets: &Secrets) -> Failure {
    // The text can be at the end of a long message, of which only the start is shown.
    let retries = headers::gateway_retries(head).or_else(|| retries_in_text(&body.bytes)).filter(|count| *count > 0);
    let (explanation, is_conclusive) = read_error_body(body);
    let explanation = explanation.with_code(headers::text(head, FAL_ERROR_TYPE));
    let Meaning { kind, verdict, maybe_billed, made_nothing } = classify::classify(status, &explanation, is_conclusive);
    let mut message = match explanation.message(secrets) {
        Some(message) if status.is_server_error() => format!("the service failed: {message}"),
        Some(message) => format!("the service rejected the request: {message}"),
        None if explanation.code().is_some() => format!("the service responded with {status}"),
        None => format!("the service responded with {status} and no explanation"),
    };
    if let Some(retries) = retries.filter(|_| !message.contains(RETRIES)) {
        message += &format!("; retries by the gateway: {retries}");
    }
    if status == StatusCode::NOT_FOUND {
        message += &format!("; the requested URL is {}", secrets.redact(&redact::url(url)));
    }
    let error = Error::new(kind, message).with_status(status.as_u16()).with_maybe_billed(maybe_billed);
    let error = if made_nothing { error.with_nothing_made() } else { error };
    let mut error = explanation.add_to(error, explanation.code(), secrets);
    if let Some(wait) = retry_after::read(head).or(explanation.retry_after) {
        error = error.with_retry_after(wait);
    }
    if [FAL_ERROR_TYPE, FAL_REQUEST_ID].iter().any(|name| head.contains_key(*name)) {
        error = error.with_is_from_job();
    }
    Failure { error, verdict }.with_request_id(explanation.request_id.as_deref(), secrets)
}

/// Finds the number of retries in the body of an error of LiteLLM.
fn retries_in_text(body: &[u8]) -> Option<u32> {
    let start = body.windows(RETRIES.len()).position(|window| window == RETRIES.as_bytes())?;
    let digits = body.iter().skip(start + RETRIES.len()).take_while(|byte| byte.is_ascii_digit());
    String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
}

/// Reads an error body, and whether a missing code proves that there was none. It does not if the body is truncated or
/// malformed JSON.
fn read_error_body(body: PartialBody) -> (Explanation, bool) {
    let PartialBody { bytes, is_complete } = body;
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes).trim_ascii();
    match std::str::from_utf8(text) {
        Ok(text) if !text.starts_with(['{', '[', '"']) => (Explanation::of_text(text), is_complete),
        _ => {
            let (value, malformed) = lenient::parse(bytes);
            (Explanation::of_json(&value), malformed.is_none())
        }
    }
}

impl Explanation {
    /// Adds `code` and the parameter to an error.
    pub(crate) fn add_to(&self, error: Error, code: Option<&str>, secrets: &Secrets) -> Error {
        let error = code.into_iter().fold(error, |error, code| error.with_code(redact::message(code, secrets)));
        let parameter = self.parameter.iter();
        parameter.fold(error, |error, name| error.with_parameter(redact::message(name, secrets)))
    }
}

/// Whether the server reports, with GOAWAY or REFUSED_STREAM, that it did not process the request (RFC 9113, 6.8 and 8.7).
fn is_refused_stream(error: &reqwest::Error) -> bool {
    let Some(error) = sources(error).find_map(|source| source.downcast_ref::<h2::Error>()) else { return false };
    let shutdown = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (shutdown || refused)
}

/// Iterates over the error and its sources.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    iter::successors(Some(error), |error| error.source())
}

/// Returns the message of the innermost source, which is the most specific one.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let text = sources(error).last().map(ToString::to_string).unwrap_or_default();
    redact::message(&text, &Secrets::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: StatusCode, body: &[u8], is_complete: bool) -> Failure {
        let body = PartialBody { bytes: body.to_vec(), is_complete };
        let url = "https://api.example/v1/images/generations?key=SECRET".parse().unwrap();
        Failure::of_response(status, &url, &HeaderMap::new(), body, &Secrets::default())
    }

    /// The code decides whether a request is retried, and whether it may have been billed.
    #[test]
    fn malformed_json_does_not_hide_the_code() {
        let bodies: [&[u8]; 9] = [
            br#"{"error":{"code":"UPSTREAM_ERROR","message":"a \ud83d"}}"#,
            b"{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a \xF0\x9F\"}}",
            b"\xEF\xBB\xBF{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a\"}}",
            b"{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a\"}}\n<!-- proxy -->",
            br#"{"error":{"code":"UPSTREAM_ERROR","code":"UPSTREAM_ERROR","message":"a"}}"#,
            b"{\"error\":{\"message\":\"a\nb\",\"code\":\"UPSTREAM_ERROR\"}}",
            br#"{"error":{"message":"a","code":503,"type":"UPSTREAM_ERROR"}}"#,
            br#"{"error":{"message":"a"},"code":"UPSTREAM_ERROR"}"#,
            br#"{"error":{"took":NaN,"message":"a","code":"UPSTREAM_ERROR"}}"#,
        ];
        for body in bodies {
            let failure = failure(StatusCode::SERVICE_UNAVAILABLE, body, true);
            assert_eq!((failure.error.code(), failure.verdict), (Some("UPSTREAM_ERROR"), Verdict::Ambiguous));
            assert!(failure.error.maybe_billed() && failure.error.to_string().contains(": a"));
        }
    }

    #[test]
    fn a_malformed_body_may_have_lost_its_code() {
        let truncated: &[u8] = br#"{"error":{"message":"a"#;
        for (body, is_complete, verdict) in [
            (truncated, true, Verdict::Ambiguous),
            (truncated, false, Verdict::Ambiguous),
            (b"", false, Verdict::Ambiguous),
            (b"<html>", false, Verdict::Ambiguous),
            (b"", true, Verdict::NotExecuted),
            (b"\xEF\xBB\xBF {\"error\":", true, Verdict::Ambiguous),
            (br#"[{"error":{"code":"UPSTREAM_ERROR"}}]"#, true, Verdict::Ambiguous),
            (br#"["busy"]"#, true, Verdict::NotExecuted),
            (b"\x1f\x8b\x08", true, Verdict::Ambiguous),
            (b"<html>{", true, Verdict::NotExecuted),
            (b"{}", true, Verdict::NotExecuted),
        ] {
            let unavailable = failure(StatusCode::SERVICE_UNAVAILABLE, body, is_complete);
            assert_eq!(unavailable.verdict, verdict, "{body:?} {is_complete}");
            assert_eq!(unavailable.error.maybe_billed(), verdict == Verdict::Ambiguous);
            // A client error was not executed, whatever its body says.
            let limited = failure(StatusCode::TOO_MANY_REQUESTS, body, is_complete);
            assert_eq!((limited.verdict, limited.error.maybe_billed()), (Verdict::NotExecuted, false));
            assert_eq!(failure(StatusCode::UNAUTHORIZED, body, is_complete).verdict, Verdict::Final);
        }
    }
}
