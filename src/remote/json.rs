//! JSON that holds no images: what is asked, and what is answered.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::Body;
use super::failure::{Failure, Verdict};
use super::headers::Said;
use crate::error::{Error, ErrorKind};

/// `fields` as the body of a request.
pub(super) fn write(fields: &impl Serialize) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(fields).map_err(|error| {
        Error::new(ErrorKind::InvalidRequest, "the request cannot be written as JSON").with_source(error)
    })?;
    Ok(body.into())
}

/// The JSON answer of a call that costs nothing: one that is no JSON may come whole next time.
pub(super) async fn free<T: DeserializeOwned>(body: &mut Body<'_>) -> Result<T, Failure> {
    let body = body.whole().await.map_err(|(_, failure)| failure.free())?;
    serde_json::from_slice(&body).map_err(|error| {
        let Failure { error, .. } = unreadable(&error, body.len()).free();
        Failure { error, verdict: Verdict::Ambiguous }
    })
}

/// The JSON answer of a call that was billed.
pub(super) async fn paid<T: DeserializeOwned>(body: &mut Body<'_>) -> Result<T, Failure> {
    let head = body.take_head();
    let secrets = body.secrets;
    let named = |failure: Failure| failure.named(Said::of(&head).request_id, secrets);
    let body = body.whole().await.map_err(|(_, failure)| named(failure))?;
    serde_json::from_slice(&body).map_err(|error| named(unreadable(&error, body.len())))
}

/// The answer of a call that costs nothing and says all by succeeding. It is read so that its connection can be used again.
pub(super) async fn ignore(body: &mut Body<'_>) -> Result<(), Failure> {
    body.whole().await.map(drop).map_err(|(_, failure)| failure.free())
}

/// Serde's own message would quote the value that it did not expect, however long.
pub(super) fn unreadable(error: &serde_json::Error, received: usize) -> Failure {
    let what = match error.classify() {
        _ if received == 0 => "is empty".to_owned(),
        serde_json::error::Category::Eof => format!("ends too early, after {received} bytes"),
        serde_json::error::Category::Data => "has another form than documented".to_owned(),
        _ => "is not JSON".to_owned(),
    };
    Failure::useless_answer(format!("the service's answer {what}"))
}
