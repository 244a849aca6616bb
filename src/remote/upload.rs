//! An upload while it goes on: when it last did, and whether what it sends can be read.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time;
use tokio_util::io::ReaderStream;

use super::failure::Failure;
use super::wait;
use crate::error::{Error, ErrorKind};

/// It is sent in pieces of this size.
const PIECE: usize = 64 * 1024;

/// One try to send the files of a request. Clones are of the same try.
#[derive(Clone)]
pub(super) struct Upload(Arc<Mutex<State>>);

struct State {
    /// When the connection last took a piece.
    last: time::Instant,
    /// Told here, since over HTTP/2 the connection's own error does not carry it.
    unreadable: Option<Error>,
}

/// A file of the caller's that cannot be read while it is sent.
struct Unreadable {
    name: String,
    parameter: String,
}

impl Unreadable {
    fn because(&self, why: &str) -> Error {
        let message = format!("cannot read {} to its end: {why}", self.name);
        Error::new(ErrorKind::Io, message).with_parameter(&self.parameter)
    }
}

impl Upload {
    pub(super) fn begin() -> Self {
        Self(Arc::new(Mutex::new(State { last: time::Instant::now(), unreadable: None })))
    }

    /// Bytes that are here already.
    pub(super) fn bytes(&self, mut bytes: Bytes) -> impl Stream<Item = Result<Bytes, Broken>> + use<> {
        let pieces = std::iter::from_fn(move || {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        let upload = self.clone();
        stream::iter(pieces).inspect(move |_| upload.goes_on())
    }

    /// A file as it is read, of exactly the length that was announced. `name` and `parameter` are for its error.
    pub(super) fn file(
        &self,
        file: File,
        length: u64,
        name: String,
        parameter: &str,
    ) -> impl Stream<Item = Result<Bytes, Broken>> + use<> {
        // One that grows meanwhile must not run over it.
        let pieces = ReaderStream::with_capacity(file.take(length), PIECE);
        let unreadable = Unreadable { name, parameter: parameter.to_owned() };
        let start = (pieces, length, self.clone(), unreadable);
        stream::try_unfold(start, |(mut pieces, left, upload, unreadable)| async move {
            match pieces.next().await {
                Some(Ok(piece)) => {
                    upload.goes_on();
                    let left = left.saturating_sub(piece.len() as u64);
                    Ok(Some((piece, (pieces, left, upload, unreadable))))
                }
                Some(Err(error)) => Err(upload.breaks(unreadable.because(&error.to_string()))),
                None if left > 0 => Err(upload.breaks(unreadable.because("it became shorter while it was sent"))),
                None => Ok(None),
            }
        })
    }

    /// Waits for the head of the answer, at most for a `silence` since something was sent, and at most until the deadline.
    pub(super) async fn answer(
        &self,
        silence: Duration,
        deadline: Instant,
        answer: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, Failure> {
        // Opening the files was no silence.
        self.goes_on();
        let mut answer = pin!(answer);
        let deadline = time::Instant::from(deadline);
        loop {
            let end = self.state().last.checked_add(silence).map_or(deadline, |end| end.min(deadline));
            if let Ok(answer) = time::timeout_at(end, answer.as_mut()).await {
                return answer.map_err(|error| match self.state().unreadable.take() {
                    // What did not come whole is not executed.
                    Some(unreadable) => Failure::last(unreadable),
                    None => Failure::of_sending(error),
                });
            }
            let quiet = self.state().last.elapsed() >= silence;
            if quiet || time::Instant::now() >= deadline {
                return Err(wait::late_head(silence, deadline.into()));
            }
        }
    }

    fn goes_on(&self) {
        self.state().last = time::Instant::now();
    }

    fn breaks(&self, unreadable: Error) -> Broken {
        self.state().unreadable = Some(unreadable);
        Broken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the request. What it broke for, the upload knows.
#[derive(Debug, thiserror::Error)]
#[error("the upload broke")]
pub(super) struct Broken;
