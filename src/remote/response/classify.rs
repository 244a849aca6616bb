//! The kind of an error, by the service's codes and messages and by the status.

use reqwest::StatusCode;

use super::explanation::{Explanation, same};
use super::failure::Verdict;
use crate::error::ErrorKind;

/// What a code or a message means.
struct Rule {
    kind: ErrorKind,
    /// What a code proves about the execution of the request.
    verdict: Verdict,
    /// Case and separators make no difference.
    codes: &'static [&'static str],
    /// Parts of messages in lower case.
    phrases: &'static [&'static str],
}

/// The meanings of codes and messages. The first rule that applies to a code is used, or else the first that applies to a
/// message.
const RULES: [Rule; 9] = [
    Rule {
        kind: ErrorKind::InsufficientBalance,
        verdict: Verdict::Final,
        codes: &[
            "INSUFFICIENT_BALANCE",
            "insufficient_quota",
            "insufficient_credits",
            "insufficient_funds",
            "credit_balance_exhausted",
            "exhausted_balance",
            "billing_hard_limit_reached",
            "billing_not_active",
            "budget_exceeded",
            "quota_exceeded",
            "payment_required",
            "Arrearage",
            "AccountOverdueError",
        ],
        phrases: &[
            "insufficient balance",
            "insufficient credit",
            "insufficient fund",
            "insufficient quota",
            "exceeded your current quota",
            "any credits",
            "available credits",
            "out of credits",
            "credit balance is too low",
            "exhausted balance",
            "enough balance",
            "enough credits",
            "budget has been exceeded",
            "billing hard limit",
            "included credits",
            "balance is insufficient",
            "overdue",
            "payment required",
            "is suspended",
        ],
    },
    Rule {
        kind: ErrorKind::ContentPolicy,
        verdict: Verdict::Final,
        codes: &[
            "CONTENT_POLICY_VIOLATION",
            "ContentPolicyViolationError",
            "ResponsibleAIPolicyViolation",
            "moderation_blocked",
            "content_filter",
            "content_filtered",
            "content_moderation",
            "content_policy",
            "DataInspectionFailed",
            "InputTextSensitiveContentDetected",
            "OutputImageSensitiveContentDetected",
            "image_safety",
            "is_image_safe",
            "moderated",
            "nsfw_content_detected",
            "prohibited_content",
            "respect_moderation",
            "safety",
            "safety_violation",
            "sensitive_content",
        ],
        phrases: &[
            "contentpolicyviolation",
            "content policy",
            "content management policy",
            "content moderation",
            "content filter",
            "safety system",
            "safety filter",
            "flagged as sensitive",
            "nsfw content",
            "moderation_blocked",
            "usage polic",
            "temporarily blocked",
        ],
    },
    Rule {
        kind: ErrorKind::Authentication,
        verdict: Verdict::Final,
        codes: &["AUTHENTICATION_FAILED", "authentication_error", "invalid_api_key", "api_key_invalid", "auth_error"],
        phrases: &[],
    },
    Rule {
        kind: ErrorKind::NotFound,
        verdict: Verdict::Final,
        codes: &[
            "MODEL_NOT_FOUND",
            "MODEL_DISABLED",
            "RECORDING_NOT_FOUND",
            "DeploymentNotFound",
            "unknown_model",
            "not_found_error",
        ],
        phrases: &["invalid model name", "model mismatch", "model not found", "unknown model"],
    },
    Rule {
        kind: ErrorKind::RateLimited,
        verdict: Verdict::NotExecuted,
        codes: &[
            "RATE_LIMITED",
            "rate_limit_exceeded",
            "rate_limit_error",
            "RateLimitError",
            "slow_down",
            "throttled",
            "too_many_requests",
        ],
        phrases: &[
            "rate limit",
            "too many requests",
            "was throttled",
            "sending requests too quickly",
            "no deployments available",
        ],
    },
    Rule {
        kind: ErrorKind::InvalidRequest,
        verdict: Verdict::Final,
        codes: &["INVALID_REQUEST", "unknown_parameter"],
        phrases: &[],
    },
    // The gateway advises to retry, because no images were delivered.
    Rule { kind: ErrorKind::Upstream, verdict: Verdict::NotExecuted, codes: &[ALL_PROVIDERS_EXHAUSTED], phrases: &[] },
    // The request was being executed, whatever the status is.
    Rule {
        kind: ErrorKind::Upstream,
        verdict: Verdict::Ambiguous,
        codes: &["UPSTREAM_ERROR", "INTERNAL_ERROR"],
        phrases: &[],
    },
    Rule {
        kind: ErrorKind::Timeout,
        verdict: Verdict::Ambiguous,
        codes: &["request_timeout", "startup_timeout", "generation_timeout", "runner_connection_timeout"],
        phrases: &[],
    },
];

/// The gateway documents that such a failure delivered nothing and can carry a part of the cost.
const ALL_PROVIDERS_EXHAUSTED: &str = "ALL_PROVIDERS_EXHAUSTED";

/// The meaning of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) kind: ErrorKind,
    pub(crate) verdict: Verdict,
    pub(crate) maybe_billed: bool,
    pub(crate) made_nothing: bool,
}

/// Whether a code has a known meaning.
pub(crate) fn is_known(code: &str) -> bool {
    rule_of_code(code).is_some()
}

/// Returns the kind of a failure that was not reported by the status of a response: that of the codes or messages, or else of
/// a status in the body.
pub(crate) fn kind(explanation: &Explanation) -> Option<ErrorKind> {
    let status = explanation.status.filter(|status| *status >= 400);
    rule(explanation).map(|(rule, _)| rule.kind).or(status.map(|status| of_status(status).0))
}

/// Returns the meaning of an error response. `is_conclusive` is false if a code may have been lost.
pub(crate) fn classify(status: StatusCode, explanation: &Explanation, is_conclusive: bool) -> Meaning {
    use ErrorKind::{InsufficientBalance, RateLimited};
    use Verdict::{Ambiguous, Final, NotExecuted};

    let (status_kind, status_verdict) = of_status(status.as_u16());
    let rule = rule(explanation);
    let of = |kind, verdict| Meaning {
        kind,
        verdict,
        maybe_billed: verdict == Ambiguous,
        made_nothing: verdict != Ambiguous,
    };
    // A client error means that the request was not executed, whatever its body says. 408 can come from a proxy.
    if status.is_client_error() && status_verdict != Ambiguous {
        let kind = rule.map_or(status_kind, |(rule, _)| client_error(rule.kind, status_kind));
        return of(kind, if kind == RateLimited { NotExecuted } else { Final });
    }
    let by_status = if status_verdict == NotExecuted && !is_conclusive { Ambiguous } else { status_verdict };
    let Some((rule, is_code)) = rule else { return of(status_kind, by_status) };
    // The status of a timeout is more specific than the code of a failure.
    let is_timeout = rule.verdict == Ambiguous && status_kind == ErrorKind::Timeout;
    let kind = if is_timeout { status_kind } else { rule.kind };
    let meaning = match rule.verdict {
        // A message is no proof, but an empty account is never billed.
        Final if !is_code && kind != InsufficientBalance => {
            Meaning { maybe_billed: true, made_nothing: false, ..of(kind, Final) }
        }
        verdict if is_code || verdict == Final => of(kind, verdict),
        _ => of(kind, by_status),
    };
    let is_exhausted = explanation.codes().iter().any(|code| same(code, ALL_PROVIDERS_EXHAUSTED));
    Meaning { maybe_billed: meaning.maybe_billed || (is_exhausted && meaning.verdict == NotExecuted), ..meaning }
}

/// Returns the kind of a client error with this status whose body names another kind.
fn client_error(named: ErrorKind, status: ErrorKind) -> ErrorKind {
    use ErrorKind::{Authentication, ContentPolicy, InsufficientBalance, InvalidRequest, NotFound, RateLimited};

    match (named, status) {
        (InsufficientBalance | ContentPolicy, _) => named,
        (Authentication | NotFound | RateLimited, InvalidRequest | Authentication | NotFound) => named,
        _ => status,
    }
}

/// Returns the rule that applies to the explanation, and whether it applies to a code.
fn rule(explanation: &Explanation) -> Option<(&'static Rule, bool)> {
    let of_codes = RULES.iter().find(|rule| explanation.codes().iter().any(|code| has_code(rule, code)));
    let messages: Vec<_> = explanation.messages().iter().map(|message| message.to_ascii_lowercase()).collect();
    let applies = |rule: &&Rule| messages.iter().any(|text| rule.phrases.iter().any(|phrase| text.contains(phrase)));
    let of_messages = RULES.iter().find(applies);
    match (of_codes, of_messages) {
        // A code such as that of a failed provider says less than the message about an empty account.
        (Some(code), Some(message)) if code.verdict != Verdict::Final && message.verdict == Verdict::Final => {
            Some((message, false))
        }
        (Some(code), _) => Some((code, true)),
        (None, message) => message.map(|rule| (rule, false)),
    }
}

fn rule_of_code(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| has_code(rule, code))
}

fn has_code(rule: &Rule, code: &str) -> bool {
    rule.codes.iter().any(|other| same(code, other))
}

fn of_status(status: u16) -> (ErrorKind, Verdict) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meaning(status: u16, code: &str, message: &str) -> Meaning {
        let body = json!({ "error": { "code": code, "message": message } });
        classify(StatusCode::from_u16(status).unwrap(), &Explanation::of_json(&body), true)
    }

    #[test]
    fn an_empty_account_and_a_refusal_are_recognized_under_every_status() {
        use ErrorKind::{ContentPolicy, InsufficientBalance};

        for status in [400, 402, 403, 412, 429, 500, 503] {
            for (code, message, kind) in [
                ("insufficient_quota", "You exceeded it", InsufficientBalance),
                ("Insufficient-Quota", "", InsufficientBalance),
                ("PRECONDITION_FAILED", "Account x is suspended", InsufficientBalance),
                ("UPSTREAM_ERROR", "the team doesn't have any credits yet", InsufficientBalance),
                ("rate_limit_error", "Budget has been exceeded! Current cost: 2", InsufficientBalance),
                ("moderation_blocked", "", ContentPolicy),
                ("", "litellm.ContentPolicyViolationError: no", ContentPolicy),
                ("UPSTREAM_ERROR", "rejected as a result of our safety system", ContentPolicy),
            ] {
                let Meaning { kind: found, verdict, maybe_billed, .. } = meaning(status, code, message);
                assert_eq!((found, verdict), (kind, Verdict::Final), "{status} {code} {message}");
                assert!(!maybe_billed || (status >= 500 && kind == ContentPolicy), "{status} {code} {message}");
            }
        }
    }

    #[test]
    fn a_client_error_is_not_billed_whatever_its_body_says() {
        use ErrorKind::{InvalidRequest, NotFound, RateLimited};

        for code in ["UPSTREAM_ERROR", "INTERNAL_ERROR", "ALL_PROVIDERS_EXHAUSTED", "request_timeout", "new"] {
            for (status, kind, verdict) in [
                (400, InvalidRequest, Verdict::Final),
                (404, NotFound, Verdict::Final),
                (424, InvalidRequest, Verdict::Final),
                (429, RateLimited, Verdict::NotExecuted),
            ] {
                let expected = Meaning { kind, verdict, maybe_billed: false, made_nothing: true };
                assert_eq!(meaning(status, code, "failed"), expected, "{status} {code}");
            }
        }
    }

    #[test]
    fn a_message_about_the_rate_does_not_prove_that_a_request_was_not_executed() {
        let message = "Rate limit reached for the model";
        let of = |status| (meaning(status, "", message).kind, meaning(status, "", message).verdict);
        assert_eq!(of(500), (ErrorKind::RateLimited, Verdict::Ambiguous));
        assert_eq!(of(503), (ErrorKind::RateLimited, Verdict::NotExecuted));
        assert_eq!(meaning(500, "RATE_LIMITED", "").verdict, Verdict::NotExecuted);
        // Replicate mentions the credit when it throttles.
        let message = "Request was throttled. Your rate limit is reduced while you have less than $5.0 in credit.";
        assert_eq!(meaning(429, "", message).kind, ErrorKind::RateLimited);
    }
}
