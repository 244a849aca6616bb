//! The explanation in an error body, whatever its structure is.
//!
//! Services nest explanations in objects, lists and JSON texts, under many names. So all objects and lists are searched for
//! fields whose name says that they contain a message, a code, the name of a parameter or a wait.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{classify, retry_after};
use crate::remote::redact;
use crate::remote::secrets::Secrets;

/// The names of fields that contain a message, the most specific first. Case and underscores make no difference.
const MESSAGES: [&str; 24] = [
    "message",
    "msg",
    "error_message",
    "error_msg",
    "detail",
    "details",
    "error",
    "errors",
    "reason",
    "error_description",
    "description",
    "explanation",
    "title",
    "failure_reason",
    "raw",
    "exception",
    "hint",
    "err",
    "err_msg",
    "error_detail",
    "cause",
    "fault_string",
    "status_message",
    "status_text",
];
/// The names of fields that contain a code, the most specific first.
const CODES: [&str; 7] = ["code", "error_code", "error_type", "type", "status", "name", "err_code"];
/// Fields in [`MESSAGES`] that can also contain a code.
const MESSAGES_OR_CODES: [&str; 4] = ["error", "errors", "reason", "exception"];
/// The names of fields that contain a reason for which the generation ended, which can be a success.
const FINISH_REASONS: [&str; 3] = ["finish_reason", "block_reason", "stop_reason"];
/// Fields with which services report a refused image, and their values then.
const REFUSALS: [(&str, bool); 3] = [("respect_moderation", false), ("is_image_safe", false), ("moderated", true)];
/// The names of fields that contain the id of the request.
const REQUEST_IDS: [&str; 2] = ["request_id", "trace_id"];
const PARAMETERS: [&str; 3] = ["param", "parameter", "field"];
/// Fields that repeat the request or contain no explanation.
const SKIPPED: [&str; 11] =
    ["input", "ctx", "request", "prompt", "url", "headers", "traceback", "stack", "stack_trace", "logs", "body"];
/// Codes without information.
const EMPTY_CODES: [&str; 7] = ["error", "errors", "none", "null", "list", "object", "failed"];

/// The maximum nesting.
const MAX_DEPTH: u32 = 8;
/// The maximum number of messages.
const MAX_MESSAGES: usize = 8;
/// An HTML page begins with its title and heading, and then contains more text than an explanation.
const MAX_HTML_TEXTS: usize = 3;
/// The maximum length of all messages together.
const MAX_LENGTH: usize = 1000;

/// The messages and codes in an error body.
#[derive(Debug, Default)]
pub(crate) struct Explanation {
    messages: Vec<String>,
    codes: Vec<String>,
    pub(crate) parameter: Option<String>,
    pub(crate) request_id: Option<String>,
    /// An HTTP status in the body, which can differ from that of the response.
    pub(crate) status: Option<u16>,
    /// The wait that the service asks for.
    pub(crate) retry_after: Option<Duration>,
}

impl Explanation {
    /// Reads JSON.
    pub(crate) fn of_json(body: &Value) -> Self {
        let mut explanation = Self::default();
        explanation.read(body, "message", 0);
        if explanation.messages.is_empty() && explanation.codes.is_empty() {
            explanation.read_any_text(body, "", 0);
        }
        explanation
    }

    /// Reads plain text or an HTML page.
    pub(crate) fn of_text(text: &str) -> Self {
        let mut explanation = Self::default();
        if text.trim_start().starts_with('<') {
            texts_of_html(text).for_each(|text| explanation.add_message(&text));
            explanation.messages.truncate(MAX_HTML_TEXTS);
        } else {
            explanation.add_message(text);
        }
        explanation
    }

    /// Adds a code, such as that of a header. It takes precedence over the others.
    pub(crate) fn with_code(mut self, code: Option<&str>) -> Self {
        self.codes.splice(0..0, code.map(str::to_owned));
        self
    }

    pub(crate) fn messages(&self) -> &[String] {
        &self.messages
    }

    pub(crate) fn codes(&self) -> &[String] {
        &self.codes
    }

    /// Returns the first code with a known meaning, or else the first code.
    pub(crate) fn code(&self) -> Option<&str> {
        self.known_code().or(self.codes.first().map(String::as_str))
    }

    /// Returns the first code with a known meaning.
    pub(crate) fn known_code(&self) -> Option<&str> {
        self.codes.iter().map(String::as_str).find(|code| classify::is_known(code))
    }

    /// Returns all messages in one line, without secrets. Returns `None` if there is no message.
    pub(crate) fn message(&self, secrets: &Secrets) -> Option<String> {
        let mut all = String::new();
        for message in &self.messages {
            let message = redact::message(message, secrets);
            if message.is_empty() || all.len() + message.len() > MAX_LENGTH {
                continue;
            }
            if !all.is_empty() {
                all += if all.ends_with(['.', '!', '?', ':', '…']) { " " } else { "; " };
            }
            all += &message;
        }
        (!all.is_empty()).then_some(all)
    }

    /// Reads a value of the field `name`.
    fn read(&mut self, value: &Value, name: &str, depth: u32) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::String(text) if is_any(name, &MESSAGES_OR_CODES) && is_identifier(text) => self.add_code(text),
            Value::String(text) if is_any(name, &MESSAGES) => match serde_json::from_str(text) {
                Ok(nested @ (Value::Object(_) | Value::Array(_))) => self.read(&nested, name, depth + 1),
                _ => self.add_message(text),
            },
            Value::Array(items) => items.iter().for_each(|item| self.read(item, name, depth + 1)),
            Value::Object(fields) => self.read_object(fields, name, depth),
            _ => {}
        }
    }

    /// Reads the object's own messages and codes, then those of the objects and lists in it.
    fn read_object(&mut self, fields: &Map<String, Value>, name: &str, depth: u32) {
        let named = |wanted: &'static str| {
            let mut fields = fields.iter().filter(move |(name, _)| same(name, wanted));
            fields.next().map(|(name, value)| (name.as_str(), value))
        };
        let location = named("loc").and_then(|(_, location)| path(location));
        let first = self.messages.len();
        for (name, value) in MESSAGES.iter().filter_map(|name| named(name)).filter(|(_, value)| value.is_string()) {
            self.read(value, name, depth + 1);
        }
        if let Some(location) = &location {
            self.messages.iter_mut().skip(first).for_each(|message| *message = format!("{location}: {message}"));
        }
        for (name, value) in CODES.iter().filter_map(|name| named(name)) {
            match value {
                Value::Number(number) => self.add_code(&number.to_string()),
                Value::String(text) if is_code(name, text) => self.add_code(text),
                _ => {}
            }
        }
        let texts = |names: &'static [&'static str]| {
            names.iter().filter_map(|name| named(name)?.1.as_str()).filter(|text| !text.is_empty())
        };
        texts(&FINISH_REASONS).filter(|reason| classify::is_known(reason)).for_each(|reason| self.add_code(reason));
        for (name, refused) in REFUSALS {
            if named(name).is_some_and(|(_, value)| *value == refused) {
                self.add_code(name);
            }
        }
        self.request_id = self.request_id.take().or_else(|| texts(&REQUEST_IDS).next().map(str::to_owned));
        let parameter = texts(&PARAMETERS).next().map(str::to_owned).or(location);
        self.parameter = self.parameter.take().or(parameter);
        self.retry_after = self.retry_after.or_else(|| retry_after::of_fields(fields));
        if same(name, "errors") {
            fields.iter().for_each(|(name, value)| self.read_field_error(name, value));
        }
        let is_nested =
            |(name, value): &(&String, &Value)| (value.is_object() || value.is_array()) && !is_any(name, &SKIPPED);
        fields.iter().filter(is_nested).for_each(|(name, value)| self.read(value, name, depth + 1));
    }

    /// Reads all sentences, and lists of texts, whatever the names of their fields are.
    fn read_any_text(&mut self, value: &Value, name: &str, depth: u32) {
        let is_request = is_any(name, &SKIPPED) || name.contains("prompt");
        match value {
            _ if depth > MAX_DEPTH || (is_request && !value.is_array()) => {}
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.read_any_text(value, name, depth + 1));
            }
            Value::Array(items) if items.iter().all(Value::is_string) => self.read_field_error(name, value),
            Value::Array(items) => items.iter().for_each(|item| self.read_any_text(item, name, depth + 1)),
            Value::String(text) if text.trim().contains(char::is_whitespace) => {
                self.add_message(&format!("{name}: {text}"));
            }
            _ => {}
        }
    }

    /// Reads the messages about the parameter `name`.
    fn read_field_error(&mut self, name: &str, value: &Value) {
        if is_any(name, &MESSAGES) || is_any(name, &CODES) {
            return;
        }
        let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for text in texts.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()) {
            self.add_message(&format!("{name}: {text}"));
            self.parameter.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Adds a message, unless another one contains it.
    fn add_message(&mut self, text: &str) {
        let text = text.trim();
        let contains = |outer: &str, inner: &str| outer.to_ascii_lowercase().contains(&inner.to_ascii_lowercase());
        if text.is_empty() || self.messages.iter().any(|message| contains(message, text)) {
            return;
        }
        if let Some(part) = self.messages.iter_mut().find(|message| contains(text, message)) {
            text.clone_into(part);
        } else if self.messages.len() < MAX_MESSAGES {
            self.messages.push(text.to_owned());
        }
    }

    /// Adds a code. The number of an HTTP status is not one.
    fn add_code(&mut self, text: &str) {
        let status = text.parse().ok().filter(|number: &u16| (100..600).contains(number));
        self.status = self.status.or(status);
        if !text.is_empty()
            && status.is_none()
            && !is_any(text, &EMPTY_CODES)
            && !self.codes.iter().any(|code| code == text)
        {
            self.codes.push(text.to_owned());
        }
    }
}

/// Whether a text in the field `name` is a code. Some fields can contain other text.
fn is_code(name: &str, text: &str) -> bool {
    match is_any(name, &["status", "name"]) {
        true => is_identifier(text) && text.contains('_'),
        false => true,
    }
}

/// Whether `text` is a single word, as codes are.
fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

/// Whether two names are the same except for their case and separators.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let letters = |text| str::bytes(text).filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    letters(one).eq(letters(other))
}

fn is_any(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| same(name, other))
}

/// Formats the location of a validator, such as `["body", "size"]`.
fn path(location: &Value) -> Option<String> {
    let parts = location.as_array()?.iter().filter(|part| !matches!(part.as_str(), Some("body" | "query")));
    let parts: Vec<_> = parts.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

/// Returns the texts between the tags of a page, without scripts and styles.
fn texts_of_html(page: &str) -> impl Iterator<Item = String> {
    let mut hidden = false;
    page.split('<').filter_map(move |part| {
        let (tag, text) = part.split_once('>').unwrap_or(("", part));
        let is = |name: &str| tag.get(..name.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(name));
        hidden = is("script") || is("style") || (hidden && !is("/"));
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let entities =
            [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        let text = entities.iter().fold(text, |text, (entity, character)| text.replace(entity, character));
        (!hidden && text.bytes().any(|byte| byte.is_ascii_alphanumeric())).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(explanation: &Explanation) -> String {
        explanation.message(&Secrets::default()).unwrap_or_default()
    }

    #[test]
    fn messages_and_codes_are_found_in_every_structure() {
        for (body, expected, code) in [
            (json!({ "error": { "message": "too long", "code": "BAD" } }), "too long", Some("BAD")),
            (json!({ "error": "server_error", "message": "no GPU" }), "no GPU", Some("server_error")),
            (json!({ "error": "no GPU" }), "no GPU", None),
            (json!({ "error": "Unauthorized" }), "", Some("Unauthorized")),
            (json!({ "error": [{ "msg": "a" }, "b c"] }), "a; b c", None),
            (json!({ "errors": { "size": ["too large"], "n": "is 0" } }), "n: is 0; size: too large", None),
            (json!({ "size": ["too large", "not square"] }), "size: too large; size: not square", None),
            (json!({ "prompt": ["This field is required."] }), "prompt: This field is required.", None),
            (json!({ "outcome": { "why": "the GPU is gone" }, "prompt": "a cat" }), "why: the GPU is gone", None),
            (json!({ "fault": { "faultstring": "quota violation" } }), "quota violation", None),
            (json!({ "candidates": [{ "finishReason": "IMAGE_SAFETY" }] }), "", Some("IMAGE_SAFETY")),
            (json!({ "base64": [], "finishReason": "SUCCESS" }), "", None),
            (json!([{ "message": "one." }, { "message": "two" }]), "one. two", None),
            (json!(["one", "two"]), "one; two", None),
            (json!("busy"), "busy", None),
            (json!({ "error_msg": "a", "error_code": 7 }), "a", Some("7")),
            (json!({ "errorMessage": "a", "errorCode": "X-1" }), "a", Some("X-1")),
            (
                json!({ "detail": [
                    { "type": "missing", "loc": ["body", "prompt"], "msg": "Field required", "input": { "message": "x" } },
                    { "type": "less_than", "loc": ["body", "options", 2], "msg": "too many" },
                ] }),
                "prompt: Field required; options.2: too many",
                Some("missing"),
            ),
            (
                json!({ "type": "about:blank", "title": "Bad Request", "status": 400, "detail": "size is bad" }),
                "size is bad; Bad Request",
                Some("about:blank"),
            ),
            (
                json!({ "error": { "message": "refused", "code": "x", "inner_error": {
                    "code": "ResponsibleAIPolicyViolation", "message": "violence" } } }),
                "refused; violence",
                Some("ResponsibleAIPolicyViolation"),
            ),
            (
                json!({ "error": { "message": "{\"error\":{\"message\":\"inner\",\"code\":\"C\"}}" } }),
                "inner",
                Some("C"),
            ),
            (json!({ "error": { "message": "bad", "code": "400", "type": "None" } }), "bad", None),
            (json!({ "message": "Bad size", "detail": "Bad size: 7x7" }), "Bad size: 7x7", None),
            (json!({ "status": "error", "data": null }), "", None),
        ] {
            let explanation = Explanation::of_json(&body);
            assert_eq!((message(&explanation).as_str(), explanation.code()), (expected, code), "{body}");
        }
    }

    #[test]
    fn a_parameter_and_a_wait_are_found() {
        for (body, parameter, seconds) in [
            (json!({ "error": { "param": "size", "message": "bad" } }), Some("size"), None),
            (json!({ "detail": [{ "loc": ["body", "n"], "msg": "bad" }] }), Some("n"), None),
            (json!({ "detail": "throttled", "retry_after": 5 }), None, Some(5.0)),
            (json!({ "error": { "retry_after_ms": "1500" } }), None, Some(1.5)),
            (json!({ "error": { "details": [{ "retryDelay": "30.5s" }] } }), None, Some(30.5)),
            (json!({ "retry_after": "soon" }), None, None),
            (json!({ "retry_after": -1 }), None, None),
        ] {
            let explanation = Explanation::of_json(&body);
            assert_eq!(explanation.parameter.as_deref(), parameter, "{body}");
            assert_eq!(explanation.retry_after.map(|wait| wait.as_secs_f64()), seconds, "{body}");
        }
    }

    #[test]
    fn pages_are_reduced_to_their_first_texts() {
        for (page, expected) in [
            ("Internal Server Error\n", "Internal Server Error"),
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center><h1>502 Bad Gateway</h1></center>\
                 <hr><center>nginx/1.25</center></body></html>",
                "502 Bad Gateway; nginx/1.25",
            ),
            ("<style>body { color: red }</style><p>a &lt; b &amp;<p>c", "a < b &; c"),
            ("<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Denied</Message></Error>", "AccessDenied"),
            ("<html></html>", ""),
        ] {
            assert_eq!(message(&Explanation::of_text(page)), expected, "{page}");
        }
    }

    #[test]
    fn the_length_is_limited_and_secrets_are_removed() {
        let many: Vec<_> = (0..50).map(|i| json!({ "message": format!("{i} {}", "word ".repeat(60)) })).collect();
        assert!(message(&Explanation::of_json(&json!(many))).len() <= MAX_LENGTH + 2 * MAX_MESSAGES);
        let nested = (0..100).fold(json!({ "message": "deep" }), |inner, _| json!({ "error": inner }));
        assert_eq!(message(&Explanation::of_json(&nested)), "");
        let signed = json!({ "message": "cannot read https://media.example/a.png?sig=SECRET" });
        assert_eq!(message(&Explanation::of_json(&signed)), "cannot read https://media.example/a.png?…");
    }
}
