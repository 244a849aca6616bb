//! Timeouts while waiting for a response.

use std::time::Duration;

use super::failure::Failure;
use crate::error::{Error, ErrorKind};
use tokio::time::Instant;

/// The part of a response that is awaited.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Head,
    Body,
}

/// Waits for `part` of a response, for at most `timeout` and until `deadline`.
pub(crate) async fn within<T>(
    timeout: Duration,
    deadline: Instant,
    part: Part,
    future: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, Failure> {
    match (tokio::time::timeout_at(end(timeout, deadline), future).await, part) {
        (Ok(Ok(value)), _) => Ok(value),
        (Ok(Err(error)), Part::Head) => Err(Failure::of_sending(error)),
        (Ok(Err(error)), Part::Body) => Err(Failure::of_reading(error)),
        (Err(_), part) => Err(expired(part, timeout, deadline)),
    }
}

/// Waits for a complete operation, for at most `timeout` and until `deadline`.
pub(crate) async fn for_operation<T>(
    timeout: Duration,
    deadline: Instant,
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let result = tokio::time::timeout_at(end(timeout, deadline), operation).await;
    result.unwrap_or_else(|_| Err(expired(Part::Head, timeout, deadline)))
}

fn end(timeout: Duration, deadline: Instant) -> Instant {
    Instant::now().checked_add(timeout).map_or(deadline, |end| end.min(deadline))
}

/// Describes an expired timeout or deadline.
pub(crate) fn expired(part: Part, timeout: Duration, deadline: Instant) -> Failure {
    let seconds = timeout.as_secs_f64();
    let message = match (part, Instant::now() >= deadline) {
        (Part::Head, true) => "the deadline expired before a response was received".into(),
        (Part::Head, false) => format!("no response was received within {seconds} seconds"),
        (Part::Body, true) => "the deadline expired while the response was received".into(),
        (Part::Body, false) => format!("the response stalled: no data was received for {seconds} seconds"),
    };
    Failure::ambiguous(Error::new(ErrorKind::Timeout, message))
}
