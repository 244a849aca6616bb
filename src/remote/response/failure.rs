//! The meaning of a failed attempt: which error it is, and whether the request was executed.

use std::iter;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::body::PartialBody;
use super::{headers, lenient, retry_after};
use crate::error::{Error, ErrorKind};
use crate::remote::redact;
use crate::remote::secrets::Secrets;

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
        let mut body = ErrorBody::read(body);
        if body.message.is_none() {
            // Without a message, fields named like a code may have another meaning.
            body.code = body.code.filter(|code| classify_code(code).is_some());
        }
        let message = match &body.message {
            Some(message) => format!("{problem}: {}", redact::message(message, secrets)),
            None => problem.to_owned(),
        };
        let (kind, _) = classify(StatusCode::OK.as_u16(), body.code.as_deref(), true);
        Self::permanent(body.add_to(Error::new(kind, message), secrets).with_maybe_billed(true))
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

    /// A response with an error status.
    pub(crate) fn of_response(status: StatusCode, head: &HeaderMap, body: PartialBody, secrets: &Secrets) -> Self {
        if status.is_redirection() {
            let message = "the service redirects to another URL, which is not followed because the request contains the \
                           API key; check the base URL";
            let error = Error::new(ErrorKind::Configuration, message).with_status(status.as_u16());
            // "See other" is the response to a request that was executed (RFC 9110, 15.4.4).
            return Self::permanent(error.with_maybe_billed(status == StatusCode::SEE_OTHER));
        }
        let (body, is_conclusive) = read_error_body(body);
        let (kind, verdict) = classify(status.as_u16(), body.code.as_deref(), is_conclusive);
        let message = match &body.message {
            Some(message) => format!("the service rejected the request: {}", redact::message(message, secrets)),
            None => format!("the service responded with {status} and no explanation"),
        };
        let error = Error::new(kind, message).with_status(status.as_u16());
        let mut error = match body.code.as_deref().is_some_and(is_all_providers_exhausted) {
            true => error.with_maybe_billed(true).with_nothing_made(),
            false => error.with_maybe_billed(verdict == Verdict::Ambiguous),
        };
        error = body.add_to(error, secrets);
        if let Some(wait) = retry_after::read(head) {
            error = error.with_retry_after(wait);
        }
        Self { error, verdict }.with_request_id(headers::request_id(head), secrets)
    }
}

/// Classifies an error response. The service's code takes precedence over the status. `is_conclusive` is false if a code may
/// have been lost.
fn classify(status: u16, code: Option<&str>, is_conclusive: bool) -> (ErrorKind, Verdict) {
    use Verdict::{Ambiguous, NotExecuted};

    match (code.and_then(classify_code), classify_status(status)) {
        // The status of a timeout is more specific than the code.
        (Some((_, Ambiguous)), timeout @ (ErrorKind::Timeout, _)) => timeout,
        (Some(classified), _) => classified,
        (None, (kind, NotExecuted)) if !is_conclusive => (kind, Ambiguous),
        (None, classified) => classified,
    }
}

fn classify_code(code: &str) -> Option<(ErrorKind, Verdict)> {
    use ErrorKind as Kind;
    use Verdict::{Ambiguous, Final, NotExecuted};

    Some(match &*code.to_ascii_uppercase() {
        "CONTENT_POLICY_VIOLATION" | "MODERATION_BLOCKED" => (Kind::ContentPolicy, Final),
        "AUTHENTICATION_FAILED" | "INVALID_API_KEY" => (Kind::Authentication, Final),
        "INSUFFICIENT_BALANCE" | "INSUFFICIENT_QUOTA" => (Kind::InsufficientBalance, Final),
        "MODEL_NOT_FOUND" | "MODEL_DISABLED" | "RECORDING_NOT_FOUND" => (Kind::NotFound, Final),
        "INVALID_REQUEST" => (Kind::InvalidRequest, Final),
        "RATE_LIMITED" | "RATE_LIMIT_EXCEEDED" => (Kind::RateLimited, NotExecuted),
        // The gateway advises to retry, because no images were delivered.
        "ALL_PROVIDERS_EXHAUSTED" => (Kind::Upstream, NotExecuted),
        // The request was being executed, whatever the status is.
        "UPSTREAM_ERROR" | "INTERNAL_ERROR" => (Kind::Upstream, Ambiguous),
        _ => return None,
    })
}

fn classify_status(status: u16) -> (ErrorKind, Verdict) {
    use ErrorKind as Kind;
    use Verdict::{Ambiguous, Final, NotExecuted};

    match status {
        401 | 403 => (Kind::Authentication, Final),
        402 => (Kind::InsufficientBalance, Final),
        404 | 410 => (Kind::NotFound, Final),
        408 | 504 | 524 => (Kind::Timeout, Ambiguous),
        429 => (Kind::RateLimited, NotExecuted),
        400..500 => (Kind::InvalidRequest, Final),
        503 => (Kind::Upstream, NotExecuted),
        500..600 => (Kind::Upstream, Ambiguous),
        _ => (Kind::InvalidResponse, Final),
    }
}

/// The gateway documents that such a failure delivered nothing and can carry a part of the cost.
fn is_all_providers_exhausted(code: &str) -> bool {
    code.eq_ignore_ascii_case("ALL_PROVIDERS_EXHAUSTED")
}

/// Reads an error body, and whether a missing code proves that there was none. It does not if the body is truncated or
/// malformed JSON.
fn read_error_body(body: PartialBody) -> (ErrorBody, bool) {
    let PartialBody { bytes, is_complete } = body;
    let is_text = std::str::from_utf8(&bytes).is_ok();
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes).trim_ascii_start();
    let is_json = matches!(text.first(), Some(b'{' | b'['));
    let (value, malformed) = lenient::parse(bytes);
    let is_object = value.is_object() && malformed.is_none();
    (ErrorBody::read(&value), is_object || (is_complete && is_text && !is_json))
}

/// The content of an error body, in the structures that gateways use.
struct ErrorBody {
    message: Option<String>,
    code: Option<String>,
    parameter: Option<String>,
}

impl ErrorBody {
    fn read(outer: &Value) -> Self {
        if let Some(message) = lenient::text(outer, "error") {
            return Self { message: Some(message.to_owned()), code: code(&[outer]), parameter: None };
        }
        let inner = outer.get("error").filter(|error| error.is_object()).unwrap_or(outer);
        Self {
            message: ["message", "error_message", "detail"].iter().find_map(|name| text(inner, name)),
            code: code(&[inner, outer]),
            parameter: text(inner, "param"),
        }
    }

    /// Adds the code and the parameter to the error.
    fn add_to(self, mut error: Error, secrets: &Secrets) -> Error {
        if let Some(code) = self.code {
            error = error.with_code(redact::message(&code, secrets));
        }
        if let Some(parameter) = self.parameter {
            error = error.with_parameter(redact::message(&parameter, secrets));
        }
        error
    }
}

/// Returns the first known code, or else the first code, of the error object and then of the object around it.
fn code(objects: &[&Value]) -> Option<String> {
    let names = ["code", "error_code", "type"];
    let codes: Vec<_> = objects.iter().flat_map(|object| names.iter().filter_map(|name| text(object, name))).collect();
    codes.iter().find(|code| classify_code(code).is_some()).or(codes.first()).cloned()
}

fn text(object: &Value, name: &str) -> Option<String> {
    match object.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        // Validators send a list of problems: `[{ loc, msg, type }]`.
        Value::Array(problems) => lenient::text(problems.first()?, "msg").map(str::to_owned),
        _ => None,
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
        Failure::of_response(status, &HeaderMap::new(), body, &Secrets::default())
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
            (b"\x1f\x8b\x08", true, Verdict::Ambiguous),
            (b"<html>{", true, Verdict::NotExecuted),
            (b"{}", true, Verdict::NotExecuted),
        ] {
            for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
                let failure = failure(status, body, is_complete);
                assert_eq!(failure.verdict, verdict, "{status} {body:?} {is_complete}");
                assert_eq!(failure.error.maybe_billed(), verdict == Verdict::Ambiguous);
            }
            assert_eq!(failure(StatusCode::UNAUTHORIZED, body, is_complete).verdict, Verdict::Final);
        }
    }
}
