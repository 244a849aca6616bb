//! Reading an answer, of bounded size and with bounded silence.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::HeaderMap;

use super::failure::Failure;
use crate::error::{Error, ErrorKind};

/// No more room than this is made on the word of the service alone.
const MOST_ROOM: usize = 256 * 1024 * 1024;

/// An answer that is being read.
pub(super) struct Body {
    response: Response,
    /// How many bytes the service announced, 0 where it did not.
    announced: usize,
    limit: usize,
    /// How many more bytes may come.
    left: usize,
    idle: Duration,
    deadline: Instant,
}

impl Body {
    /// At most `limit` bytes, before the `deadline`; `idle` bounds the silence between two pieces.
    pub(super) fn new(response: Response, limit: usize, idle: Duration, deadline: Instant) -> Self {
        let announced = response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        Self { response, announced, limit, left: limit, idle, deadline }
    }

    /// Whether the service did what it was asked for.
    pub(super) fn is_success(&self) -> bool {
        self.response.status().is_success()
    }

    /// What is left of the answer.
    pub(super) fn into_response(self) -> Response {
        self.response
    }

    /// The headers; none are left.
    pub(super) fn take_head(&mut self) -> HeaderMap {
        std::mem::take(self.response.headers_mut())
    }

    /// For how many bytes to make room, so that a buffer need not grow by copying.
    pub(super) fn room(&self) -> usize {
        if self.announced > self.limit { 0 } else { self.announced.min(MOST_ROOM) }
    }

    /// The next bytes, or none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.announced > self.limit {
            return Err(too_large(self.limit));
        }
        let piece = next(&mut self.response, self.idle, self.deadline).await?;
        let length = piece.as_ref().map_or(0, Bytes::len);
        self.left = self.left.checked_sub(length).ok_or_else(|| too_large(self.limit))?;
        Ok(piece)
    }

    /// All of it.
    pub(super) async fn whole(&mut self) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::with_capacity(self.room());
        while let Some(piece) = self.next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// The first `limit` bytes of an error's body, or as many as come: it only explains.
pub(super) async fn read_some(mut response: Response, limit: usize, idle: Duration, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = next(&mut response, idle, deadline).await {
        body.extend_from_slice(&piece);
        if body.len() >= limit {
            break;
        }
    }
    body.truncate(limit);
    body
}

/// The next bytes of an answer. Whoever reads it keeps what came before the deadline.
pub(super) async fn next(response: &mut Response, idle: Duration, deadline: Instant) -> Result<Option<Bytes>, Failure> {
    match within(idle, deadline, pin!(response.chunk())).await {
        Ok(piece) => piece.map_err(Failure::of_reading),
        Err(Late::Silence) => {
            let message = format!("the answer stopped: nothing came for {} seconds", idle.as_secs_f64());
            Err(Failure::ambiguous(Error::new(ErrorKind::Timeout, message)))
        }
        Err(Late::Deadline) => {
            let message = "the deadline passed in the middle of the answer";
            Err(Failure::ambiguous(Error::new(ErrorKind::Timeout, message)))
        }
    }
}

/// What came first.
#[derive(Clone, Copy)]
pub(super) enum Late {
    Silence,
    Deadline,
}

/// Waits for `wait`, at most for a `silence` from now and at most until the deadline: one timer for both, and none where
/// there is nothing to wait for.
pub(super) fn within<F: Future>(
    silence: Duration,
    deadline: Instant,
    mut wait: Pin<&mut F>,
) -> impl Future<Output = Result<F::Output, Late>> {
    let mut late = Late::Deadline;
    async move {
        let mut timer = pin!(None);
        poll_fn(|context| {
            if let Poll::Ready(output) = wait.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            if timer.is_none() {
                let end = Instant::now().checked_add(silence).filter(|end| *end < deadline);
                if end.is_some() {
                    late = Late::Silence;
                }
                timer.set(Some(tokio::time::sleep_until(end.unwrap_or(deadline).into())));
            }
            timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(context)).map(|()| Err(late))
        })
        .await
    }
}

fn too_large(limit: usize) -> Failure {
    Failure::useless_answer(format!(
        "the answer is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`, or ask for \
         addresses instead of bytes"
    ))
}
