//! What a failed request means: which error, and whether the request ran.

use std::iter;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Number;
use serde_json::value::RawValue;

use super::headers::Said;
use super::key::Secrets;
use super::lenient::{self, Object};
use super::multipart::Unreadable;
use super::{clean, retry_after};
use crate::error::{Error, ErrorKind};

/// A failed try.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) verdict: Verdict,
}

/// Whether trying again can help, and what it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was sent, and nothing would be another time.
    NotSent,
    /// The same request would fail again, or its answer is lost.
    Final,
    /// The request was not executed, and may be next time.
    NotExecuted,
    /// The request may have been executed, and billed.
    Ambiguous,
}

impl Failure {
    #[cold]
    pub(super) fn not_sent(error: Error) -> Self {
        Self { error, verdict: Verdict::NotSent }
    }

    #[cold]
    pub(super) fn last(error: Error) -> Self {
        Self { error, verdict: Verdict::Final }
    }

    /// A failure after which nobody knows whether the service did the work.
    #[cold]
    pub(super) fn ambiguous(error: Error) -> Self {
        Self { error: error.with_maybe_billed(true), verdict: Verdict::Ambiguous }
    }

    /// A success whose answer is of no use: it was executed, and trying again would pay again.
    #[cold]
    pub(super) fn useless_answer(message: impl Into<String>) -> Self {
        Self::last(Error::new(ErrorKind::InvalidResponse, message).with_maybe_billed(true))
    }

    /// The same failure, of a call that cannot have been billed.
    pub(super) fn free(self) -> Self {
        Self { error: self.error.with_maybe_billed(false), verdict: self.verdict }
    }

    /// With the service's name for the request, to ask about it: it may have been paid for.
    pub(super) fn named(self, id: Option<&str>) -> Self {
        let error = match id {
            Some(id) => self.error.with_request_id(clean::message(id, &Secrets::default())),
            None => self.error,
        };
        Self { error, verdict: self.verdict }
    }

    /// A success without an image, which may say in its body that it is none.
    #[cold]
    pub(super) fn no_image(why: &str, body: &[u8], secrets: &Secrets) -> Self {
        let body = Body::read(body);
        let message = match &body.message {
            Some(message) => format!("{why}: {}", clean::message(message, secrets)),
            None => why.to_owned(),
        };
        let (kind, _) = judge(StatusCode::OK.as_u16(), body.code.as_deref());
        Self::last(body.add_to(Error::new(kind, message), secrets).with_maybe_billed(true))
    }

    /// A failure to send a request or to read the head of its answer.
    #[cold]
    pub(super) fn of_sending(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_builder() {
            let message = "the request cannot be built";
            return Self::not_sent(Error::new(ErrorKind::Configuration, message).with_source(error));
        }
        if error.is_redirect() {
            let message = "the service redirects too often; check the base address";
            return Self::last(Error::new(ErrorKind::Configuration, message).with_source(error));
        }
        if error.is_connect() {
            let message = format!("cannot connect to the service: {}", innermost(&error));
            let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
            return Self { error: Error::new(kind, message).with_source(error), verdict: Verdict::NotExecuted };
        }
        if let Some(unreadable) = sources(&error).find_map(|source| source.downcast_ref::<Unreadable>()) {
            // What did not come whole is not executed.
            let error = Error::new(ErrorKind::Io, unreadable.to_string()).with_parameter(&unreadable.parameter);
            return Self::last(error);
        }
        if is_refused(&error) {
            let message = "the service refused the request before it began; it closes this connection or is too busy";
            let error = Error::new(ErrorKind::Connection, message).with_source(error);
            return Self { error, verdict: Verdict::NotExecuted };
        }
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
        let message = format!("the connection broke before an answer came: {}", innermost(&error));
        Self::ambiguous(Error::new(kind, message).with_source(error))
    }

    /// A failure in the middle of the answer of a successful request.
    #[cold]
    pub(super) fn of_reading(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Connection };
        let message = format!("the connection broke in the middle of the answer: {}", innermost(&error));
        Self::ambiguous(Error::new(kind, message).with_source(error))
    }

    /// An answer with a status other than success. `body` may be cut short.
    #[cold]
    pub(super) fn of_answer(status: StatusCode, head: &HeaderMap, body: &[u8], secrets: &Secrets) -> Self {
        if status.is_redirection() {
            let message = "the service redirects elsewhere, and a request with a key does not follow; check the base \
                           address";
            let error = Error::new(ErrorKind::Configuration, message).with_status(status.as_u16());
            // "See other" answers a request that was executed (RFC 9110, 15.4.4).
            return Self::last(error.with_maybe_billed(status == StatusCode::SEE_OTHER));
        }
        let body = Body::read(body);
        let (kind, verdict) = judge(status.as_u16(), body.code.as_deref());
        let message = match &body.message {
            Some(message) => format!("the service refused: {}", clean::message(message, secrets)),
            None => format!("the service answered {status} without an explanation"),
        };
        let mut error =
            Error::new(kind, message).with_status(status.as_u16()).with_maybe_billed(verdict == Verdict::Ambiguous);
        if all_exhausted(body.code.as_deref()) {
            error = error.with_maybe_billed(true).with_nothing_made();
        }
        error = body.add_to(error, secrets);
        if let Some(id) = Said::of(head).request_id {
            error = error.with_request_id(clean::message(id, secrets));
        }
        if let Some(wait) = retry_after::read(head) {
            error = error.with_retry_after(wait);
        }
        Self { error, verdict }
    }
}

/// Which error an answer is, by the service's code before the status.
fn judge(status: u16, code: Option<&str>) -> (ErrorKind, Verdict) {
    use ErrorKind as Kind;
    use Verdict::{Ambiguous, Final, NotExecuted};

    match code.map(str::to_ascii_uppercase).as_deref() {
        Some("CONTENT_POLICY_VIOLATION" | "MODERATION_BLOCKED") => return (Kind::ContentPolicy, Final),
        Some("AUTHENTICATION_FAILED" | "INVALID_API_KEY") => return (Kind::Authentication, Final),
        Some("INSUFFICIENT_BALANCE" | "INSUFFICIENT_QUOTA") => return (Kind::InsufficientBalance, Final),
        Some("MODEL_NOT_FOUND" | "MODEL_DISABLED" | "RECORDING_NOT_FOUND") => return (Kind::NotFound, Final),
        Some("INVALID_REQUEST") => return (Kind::InvalidRequest, Final),
        Some("RATE_LIMITED" | "RATE_LIMIT_EXCEEDED") => return (Kind::RateLimited, NotExecuted),
        // The gateway advises to try again: nothing was delivered.
        Some("ALL_PROVIDERS_EXHAUSTED") => return (Kind::Upstream, NotExecuted),
        // Somebody was at work, whatever the status says.
        Some("UPSTREAM_ERROR" | "INTERNAL_ERROR") if !matches!(status, 504 | 524) => {
            return (Kind::Upstream, Ambiguous);
        }
        _ => {}
    }
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

/// The vendor says that such a failure delivered nothing and can carry a part of the cost.
fn all_exhausted(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.eq_ignore_ascii_case("ALL_PROVIDERS_EXHAUSTED"))
}

/// The error body in the shapes that gateways give it.
#[derive(Default)]
struct Body {
    message: Option<String>,
    code: Option<String>,
    parameter: Option<String>,
}

impl Body {
    /// Whatever is wrong beside it: how the request is judged depends on the code.
    fn read(body: &[u8]) -> Self {
        let mut body = body.to_vec();
        lenient::mend(&mut body);
        let Ok(outer) = Object::read(&body) else {
            return Self::default();
        };
        if let Some(message) = outer.text("error") {
            return Self { message: Some(message), code: text(&outer, &["code", "error_code"]), parameter: None };
        }
        let inner = outer.read_as("error").unwrap_or(outer);
        Self {
            message: text(&inner, &["message", "error_message", "detail"]),
            code: text(&inner, &["code", "error_code"]).or_else(|| text(&inner, &["type"])),
            parameter: text(&inner, &["param"]),
        }
    }

    /// The error with what is said besides the message.
    fn add_to(self, mut error: Error, secrets: &Secrets) -> Error {
        if let Some(code) = self.code {
            error = error.with_code(clean::message(&code, secrets));
        }
        if let Some(parameter) = self.parameter {
            error = error.with_parameter(clean::message(&parameter, secrets));
        }
        error
    }
}

fn text(object: &Object, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let field = object.field(name)?;
        let number = || lenient::read_as::<Number>(field).map(|number| number.to_string());
        // Validators list what is wrong: `[{ loc, msg, type }]`.
        let listed = || lenient::read_as::<Object>(lenient::read_as::<Vec<&RawValue>>(field)?.first()?)?.text("msg");
        lenient::text(field).or_else(number).or_else(listed)
    })
}

/// Whether the server says, by HTTP/2's own means (RFC 9113, 6.8 and 8.7), that it did not process the request.
fn is_refused(error: &reqwest::Error) -> bool {
    let Some(error) = sources(error).find_map(|source| source.downcast_ref::<h2::Error>()) else { return false };
    let closing = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (closing || refused)
}

/// The error, the one beneath it, and so on.
fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    iter::successors(Some(error), |error| error.source())
}

/// The error at the bottom says what happened; those above it say only where.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let text = sources(error).last().map(ToString::to_string).unwrap_or_default();
    clean::message(&text, &Secrets::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A code decides whether a request is sent again, and whether it may have been billed.
    #[test]
    fn what_is_wrong_beside_the_code_does_not_hide_it() {
        let bodies: [&[u8]; 5] = [
            br#"{"error":{"code":"UPSTREAM_ERROR","message":"a \ud83d"}}"#,
            b"{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a \xF0\x9F\"}}",
            b"\xEF\xBB\xBF{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a\"}}",
            b"{\"error\":{\"code\":\"UPSTREAM_ERROR\",\"message\":\"a\"}}\n<!-- proxy -->",
            br#"{"error":{"code":"UPSTREAM_ERROR","code":"UPSTREAM_ERROR","message":"a"}}"#,
        ];
        for body in bodies {
            let failure =
                Failure::of_answer(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), body, &Secrets::default());
            assert_eq!((failure.error.code(), failure.verdict), (Some("UPSTREAM_ERROR"), Verdict::Ambiguous));
            assert!(failure.error.maybe_billed() && failure.error.to_string().contains("refused: a"));
        }
    }

    #[test]
    fn no_error_body_panics_however_it_is_cut_or_changed() {
        let body = br#"{"error":{"message":"see https://x/?a=1 \u00e4","code":7,"param":"n"},"detail":[{"msg":"no"}],"error_code":"X"}"#;
        let read = |body: &[u8]| {
            Failure::of_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), body, &Secrets::default()).error
        };
        assert_eq!((read(body).code(), read(body).parameter()), (Some("7"), Some("n")));
        for end in 0..=body.len() {
            read(&body[..end]);
        }
        for at in 0..body.len() {
            for byte in [0, b'"', b'\\', b',', b'{', b']', b':', 0x80, 0xFF] {
                let mut changed = body.to_vec();
                changed[at] = byte;
                assert_eq!(read(&changed).kind(), ErrorKind::InvalidRequest);
            }
        }
    }
}
