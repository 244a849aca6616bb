//! Reading an answer, of bounded size and with bounded silence.

use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::HeaderMap;

use super::failure::Failure;
use super::key::Secrets;
use super::wait::{Part, within};
use crate::error::{Error, ErrorKind};

/// No more room than this is made on the word of the service alone.
const MOST_ROOM: usize = 256 * 1024 * 1024;

/// An answer that is being read.
pub(super) struct Body<'a> {
    response: Response,
    /// What must not be told of it.
    pub(super) secrets: &'a Secrets,
    /// How many bytes the service announced, 0 where it did not.
    announced: usize,
    limit: usize,
    /// How many more bytes may come.
    left: usize,
    idle: Duration,
    deadline: Instant,
}

impl<'a> Body<'a> {
    /// At most `limit` bytes, before the `deadline`; `idle` bounds the silence between two pieces.
    pub(super) fn new(
        response: Response,
        secrets: &'a Secrets,
        limit: usize,
        idle: Duration,
        deadline: Instant,
    ) -> Self {
        let announced = response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        Self { response, secrets, announced, limit, left: limit, idle, deadline }
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
        let Some(piece) = piece else {
            // HTTP/2 can end an answer early without calling it an error.
            return if self.limit - self.left < self.announced { Err(cut_short()) } else { Ok(None) };
        };
        self.left = self.left.checked_sub(piece.len()).ok_or_else(|| too_large(self.limit))?;
        Ok(Some(piece))
    }

    /// All of it, or what came and why no more does. What came in one piece is not copied.
    pub(super) async fn whole(&mut self) -> Result<Bytes, (Bytes, Failure)> {
        let mut first = Bytes::new();
        let mut joined = Vec::new();
        let end = loop {
            match self.next().await {
                Ok(Some(piece)) if first.is_empty() => first = piece,
                Ok(Some(piece)) => {
                    if joined.is_empty() {
                        joined.reserve(self.room());
                        joined.extend_from_slice(&first);
                    }
                    joined.extend_from_slice(&piece);
                }
                Ok(None) => break None,
                Err(failure) => break Some(failure),
            }
        };
        let came = if joined.is_empty() { first } else { joined.into() };
        match end {
            None => Ok(came),
            Some(failure) => Err((came, failure)),
        }
    }
}

/// As much of an error's body as came.
pub(super) struct SomeBody {
    pub(super) bytes: Vec<u8>,
    pub(super) is_whole: bool,
}

/// The first `limit` bytes of an error's body, or as many as come: it only explains.
pub(super) async fn read_some(mut response: Response, limit: usize, idle: Duration, deadline: Instant) -> SomeBody {
    let mut bytes = Vec::new();
    let is_whole = loop {
        match next(&mut response, idle, deadline).await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            end => break end.is_ok(),
        }
        if bytes.len() > limit {
            bytes.truncate(limit);
            break false;
        }
    };
    SomeBody { bytes, is_whole }
}

/// The next bytes of an answer. Whoever reads it keeps what came before the deadline.
pub(super) async fn next(response: &mut Response, idle: Duration, deadline: Instant) -> Result<Option<Bytes>, Failure> {
    within(idle, deadline, Part::Body, pin!(response.chunk())).await
}

/// An answer that ended before what was announced of it.
#[cold]
pub(super) fn cut_short() -> Failure {
    Failure::ambiguous(Error::new(ErrorKind::Connection, "the answer ended early: less came than was announced"))
}

#[cold]
fn too_large(limit: usize) -> Failure {
    Failure::useless_answer(format!(
        "the answer is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`, or ask for \
         addresses instead of bytes"
    ))
}
