//! Reading an answer's body into one buffer of bounded size.

use std::time::Duration;

use reqwest::Response;

use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// The whole body, up to `limit` bytes. `idle` bounds the silence between two pieces.
///
/// The buffer is made as large as the service announces, so that it need not grow by copying.
pub(super) async fn read(mut response: Response, limit: usize, idle: Duration) -> Result<Vec<u8>, Failure> {
    let announced = response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced > limit {
        return Err(too_large(limit));
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(piece) = next(&mut response, idle).await? {
        if piece.len() > limit - body.len() {
            return Err(too_large(limit));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The first `limit` bytes of an error's body, or as many as come: it only explains.
pub(super) async fn read_some(mut response: Response, limit: usize, idle: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = next(&mut response, idle).await {
        body.extend_from_slice(&piece);
        if body.len() >= limit {
            break;
        }
    }
    body.truncate(limit);
    body
}

pub(super) async fn next(response: &mut Response, idle: Duration) -> Result<Option<bytes::Bytes>, Failure> {
    match tokio::time::timeout(idle, response.chunk()).await {
        Ok(piece) => piece.map_err(Failure::of_reading),
        Err(_) => {
            let message = format!("the answer stopped: nothing came for {} seconds", idle.as_secs_f64());
            Err(Failure::ambiguous(Error::new(ErrorKind::Timeout, message)))
        }
    }
}

fn too_large(limit: usize) -> Failure {
    Failure::useless_answer(format!(
        "the answer is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`, or ask for \
         addresses instead of bytes"
    ))
}
