//! JSON responses that hold no images.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::body::Body;
use super::explanation::Explanation;
use super::failure::{Failure, Verdict};
use super::{headers, lenient};
use crate::remote::secrets::Secrets;

/// Reads the response to a free request. If it is not the expected JSON, the request may be repeated.
pub(crate) async fn free<T: DeserializeOwned>(body: &mut Body<'_>) -> Result<T, Failure> {
    let bytes = body.bytes().await.map_err(Failure::free)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let failure = unreadable(&error, bytes.len(), None, body.secrets).free();
        Failure { verdict: Verdict::Ambiguous, ..failure }
    })
}

/// Reads the response to a paid request.
pub(crate) async fn paid(body: &mut Body<'_>) -> Result<Value, Failure> {
    let secrets = body.secrets;
    let head = body.take_headers();
    let result = body.bytes().await.and_then(|bytes| match (bytes.len(), lenient::parse(bytes.into())) {
        (_, (value, None)) => Ok(value),
        (received, (_, Some(error))) => Err(unreadable(&error, received, None, secrets)),
    });
    result.map_err(|failure| failure.with_request_id(headers::request_id(&head), secrets))
}

/// Reads and ignores the response to a free request, so that its connection can be reused.
pub(crate) async fn ignore(body: &mut Body<'_>) -> Result<(), Failure> {
    body.bytes().await.map(drop).map_err(Failure::free)
}

/// Describes JSON that cannot be read. The message of serde would quote the body. `page` is a body that is an HTML page.
pub(crate) fn unreadable(
    error: &serde_json::Error,
    received: usize,
    page: Option<String>,
    secrets: &Secrets,
) -> Failure {
    let problem = match error.classify() {
        _ if received == 0 => "is empty".to_owned(),
        serde_json::error::Category::Eof => format!("is truncated after {received} bytes"),
        serde_json::error::Category::Data => "does not have the documented structure".to_owned(),
        _ => "is not valid JSON".to_owned(),
    };
    let explanation = page.and_then(|page| Explanation::of_text(&page).message(secrets));
    let explanation = explanation.map(|text| format!(": {text}")).unwrap_or_default();
    Failure::unusable_response(format!("the response body {problem}{explanation}"))
}
