//! Waiting for the service, which may fall silent.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// What is waited for.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Head,
    Body,
}

/// Waits for a `part` of an answer, at most for a `silence` from now and at most until the deadline: one timer for both, and
/// none where there is nothing to wait for.
#[expect(clippy::manual_async_fn, reason = "the future of an async function has room for its arguments twice")]
pub(super) fn within<T, F: Future<Output = reqwest::Result<T>>>(
    silence: Duration,
    deadline: Instant,
    part: Part,
    mut wait: Pin<&mut F>,
) -> impl Future<Output = Result<T, Failure>> {
    async move {
        let mut timer = pin!(None);
        poll_fn(|context| {
            match wait.as_mut().poll(context) {
                Poll::Ready(Ok(value)) => return Poll::Ready(Ok(value)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(part, error))),
                Poll::Pending => {}
            }
            if timer.is_none() {
                let end = Instant::now().checked_add(silence).map_or(deadline, |end| end.min(deadline));
                timer.set(Some(tokio::time::sleep_until(end.into())));
            }
            let timer = timer.as_mut().as_pin_mut();
            timer.map_or(Poll::Pending, |timer| timer.poll(context)).map(|()| Err(late(part, silence, deadline)))
        })
        .await
    }
}

/// That no head of an answer came after such a silence, or before the deadline.
#[cold]
pub(super) fn late_head(silence: Duration, deadline: Instant) -> Failure {
    late(Part::Head, silence, deadline)
}

/// Waits for an answer as a whole, at most for a `silence` from now and at most until the deadline.
pub(super) async fn for_whole<T>(
    silence: Duration,
    deadline: Instant,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let end = Instant::now().checked_add(silence).map_or(deadline, |end| end.min(deadline));
    let in_time = tokio::time::timeout_at(end.into(), answer).await;
    in_time.unwrap_or_else(|_| Err(late_head(silence, deadline)))
}

#[cold]
fn broken(part: Part, error: reqwest::Error) -> Failure {
    match part {
        Part::Head => Failure::of_sending(error),
        Part::Body => Failure::of_reading(error),
    }
}

#[cold]
fn late(part: Part, silence: Duration, deadline: Instant) -> Failure {
    let seconds = silence.as_secs_f64();
    let message = match (part, Instant::now() >= deadline) {
        (Part::Head, true) => "the deadline passed before an answer came".into(),
        (Part::Head, false) => format!("no answer came within {seconds} seconds"),
        (Part::Body, true) => "the deadline passed in the middle of the answer".into(),
        (Part::Body, false) => format!("the answer stopped: nothing came for {seconds} seconds"),
    };
    Failure::ambiguous(Error::new(ErrorKind::Timeout, message))
}
