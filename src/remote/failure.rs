//! What a failed request means: which error, and whether the request ran.

use std::iter;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Number;
use serde_json::value::RawValue;

use super::body::SomeBody;
use super::headers::Said;
use super::key::Secrets;
use super::lenient::{self, Object};
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
    pub(super) fn named(self, id: Option<&str>, secrets: &Secrets) -> Self {
        let error = match id {
            Some(id) => self.error.with_request_id(clean::message(id, secrets)),
            None => self.error,
        };
        Self { error, verdict: self.verdict }
    }

    /// A success without an image, which may say in its body that it is none.
    #[cold]
    pub(super) fn no_image(why: &str, body: &[u8], secrets: &Secrets) -> Self {
        let mut body = Body::read(body, true);
        if body.message.is_none() {
            // What looks like a code may be a field of an answer that is in order.
            body.code = body.code.filter(|code| judge_code(code).is_some());
        }
        let message = match &body.message {
            Some(message) => format!("{why}: {}", clean::message(message, secrets)),
            None => why.to_owned(),
        };
        let (kind, _) = judge(StatusCode::OK.as_u16(), &body);
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

    /// An answer with a status other than success. Its `body` may be cut short.
    #[cold]
    pub(super) fn of_answer(status: StatusCode, head: &HeaderMap, body: &SomeBody, secrets: &Secrets) -> Self {
        if status.is_redirection() {
            let message = "the service redirects elsewhere, and a request with a key does not follow; check the base \
                           address";
            let error = Error::new(ErrorKind::Configuration, message).with_status(status.as_u16());
            // "See other" answers a request that was executed (RFC 9110, 15.4.4).
            return Self::last(error.with_maybe_billed(status == StatusCode::SEE_OTHER));
        }
        let body = Body::read(&body.bytes, body.is_whole);
        let (kind, verdict) = judge(status.as_u16(), &body);
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
fn judge(status: u16, body: &Body) -> (ErrorKind, Verdict) {
    use ErrorKind as Kind;
    use Verdict::{Ambiguous, NotExecuted};

    match (body.code.as_deref().and_then(judge_code), judge_status(status)) {
        // A time-out tells more.
        (Some((_, Ambiguous)), (Kind::Timeout, verdict)) => (Kind::Timeout, verdict),
        (Some(judged), _) => judged,
        // The code that would tell otherwise may have been lost.
        (None, (kind, NotExecuted)) if !body.is_clear => (kind, Ambiguous),
        (None, judged) => judged,
    }
}

fn judge_code(code: &str) -> Option<(ErrorKind, Verdict)> {
    use ErrorKind as Kind;
    use Verdict::{Ambiguous, Final, NotExecuted};

    Some(match &*code.to_ascii_uppercase() {
        "CONTENT_POLICY_VIOLATION" | "MODERATION_BLOCKED" => (Kind::ContentPolicy, Final),
        "AUTHENTICATION_FAILED" | "INVALID_API_KEY" => (Kind::Authentication, Final),
        "INSUFFICIENT_BALANCE" | "INSUFFICIENT_QUOTA" => (Kind::InsufficientBalance, Final),
        "MODEL_NOT_FOUND" | "MODEL_DISABLED" | "RECORDING_NOT_FOUND" => (Kind::NotFound, Final),
        "INVALID_REQUEST" => (Kind::InvalidRequest, Final),
        "RATE_LIMITED" | "RATE_LIMIT_EXCEEDED" => (Kind::RateLimited, NotExecuted),
        // The gateway advises to try again: nothing was delivered.
        "ALL_PROVIDERS_EXHAUSTED" => (Kind::Upstream, NotExecuted),
        // Somebody was at work, whatever the status says.
        "UPSTREAM_ERROR" | "INTERNAL_ERROR" => (Kind::Upstream, Ambiguous),
        _ => return None,
    })
}

fn judge_status(status: u16) -> (ErrorKind, Verdict) {
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

/// The vendor says that such a failure delivered nothing and can carry a part of the cost.
fn all_exhausted(code: Option<&str>) -> bool {
    code.is_some_and(|code| code.eq_ignore_ascii_case("ALL_PROVIDERS_EXHAUSTED"))
}

/// The error body in the shapes that gateways give it.
struct Body {
    message: Option<String>,
    code: Option<String>,
    parameter: Option<String>,
    /// Whether there is no code where none was found. Of JSON that is broken nobody knows.
    is_clear: bool,
}

impl Body {
    /// Whatever is wrong beside it: how the request is judged depends on the code.
    fn read(body: &[u8], is_whole: bool) -> Self {
        let mut mended = body.to_vec();
        lenient::mend(&mut mended);
        let Ok(outer) = Object::read(&mended) else {
            let is_json = matches!(lenient::without_mark(&mended).trim_ascii_start().first(), Some(b'{' | b'['));
            let is_text = std::str::from_utf8(body).is_ok();
            return Self { message: None, code: None, parameter: None, is_clear: is_whole && is_text && !is_json };
        };
        if let Some(message) = outer.text("error") {
            return Self { message: Some(message), code: code(&[&outer]), parameter: None, is_clear: true };
        }
        let error = outer.read_as("error");
        let inner = error.as_ref().unwrap_or(&outer);
        Self {
            message: text(inner, &["message", "error_message", "detail"]),
            code: code(&[inner, &outer]),
            parameter: text(inner, &["param"]),
            is_clear: true,
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

/// The first name of an error that tells something, or else the first; in the error itself before what is around it.
fn code(objects: &[&Object]) -> Option<String> {
    let names = |object: &&Object| ["code", "error_code", "type"].map(|name| text(object, &[name]));
    let names: Vec<_> = objects.iter().flat_map(names).flatten().collect();
    names.iter().find(|name| judge_code(name).is_some()).or(names.first()).cloned()
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

    fn failure(status: StatusCode, body: &[u8], is_whole: bool) -> Failure {
        let body = SomeBody { bytes: body.to_vec(), is_whole };
        Failure::of_answer(status, &HeaderMap::new(), &body, &Secrets::default())
    }

    /// A code decides whether a request is sent again, and whether it may have been billed.
    #[test]
    fn what_is_wrong_beside_the_code_does_not_hide_it() {
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
            assert!(failure.error.maybe_billed() && failure.error.to_string().contains("refused: a"));
        }
    }

    #[test]
    fn a_code_that_may_have_been_lost_is_not_taken_for_none() {
        let broken: &[u8] = br#"{"error":{"message":"a"#;
        for (body, is_whole, verdict) in [
            (broken, true, Verdict::Ambiguous),
            (broken, false, Verdict::Ambiguous),
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
                let failure = failure(status, body, is_whole);
                assert_eq!(failure.verdict, verdict, "{status} {body:?} {is_whole}");
                assert_eq!(failure.error.maybe_billed(), verdict == Verdict::Ambiguous);
            }
            assert_eq!(failure(StatusCode::UNAUTHORIZED, body, is_whole).verdict, Verdict::Final);
        }
    }

    #[test]
    fn no_error_body_panics_however_it_is_cut_or_changed() {
        let body = br#"{"error":{"message":"see https://x/?a=1 \u00e4","code":7,"param":"n"},"detail":[{"msg":"no"}],"error_code":"X"}"#;
        let read = |body: &[u8]| failure(StatusCode::BAD_REQUEST, body, true).error;
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
