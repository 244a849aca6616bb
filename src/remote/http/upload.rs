//! The progress of an upload, and errors of the files that are uploaded.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Response;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::time::{self, Instant};
use tokio_util::io::ReaderStream;

use crate::error::{Error, ErrorKind};
use crate::remote::response::failure::Failure;
use crate::remote::response::timeout::{Part, expired};

/// The size of the chunks that are sent.
const CHUNK: usize = 64 * 1024;

/// One attempt to send the files of a request. Clones share its state.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Mutex<State>>);

struct State {
    /// When the connection accepted the last chunk.
    last_progress: Instant,
    /// The error of a file that could not be read. Over HTTP/2 the error of the connection does not contain it.
    file_error: Option<Error>,
}

impl Upload {
    pub(crate) fn start() -> Self {
        Self(Arc::new(Mutex::new(State { last_progress: Instant::now(), file_error: None })))
    }

    /// Streams bytes from memory.
    pub(crate) fn bytes(&self, mut bytes: Bytes) -> impl Stream<Item = Result<Bytes, UploadError>> + use<> {
        let chunks = std::iter::from_fn(move || {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            (!chunk.is_empty()).then_some(Ok(chunk))
        });
        let upload = self.clone();
        stream::iter(chunks).inspect(move |_| upload.record_progress())
    }

    /// Streams exactly `length` bytes of a file. `name` and `parameter` are for its errors.
    pub(crate) fn file(
        &self,
        file: File,
        length: u64,
        name: String,
        parameter: &str,
    ) -> impl Stream<Item = Result<Bytes, UploadError>> + use<> {
        let failed = {
            let parameter = parameter.to_owned();
            move |why: String| {
                Error::new(ErrorKind::Io, format!("cannot read {name} to its end: {why}")).with_parameter(&parameter)
            }
        };
        // A file that grows while it is read must not exceed the announced length.
        let chunks = ReaderStream::with_capacity(file.take(length), CHUNK);
        let start = (chunks, length, self.clone(), failed);
        stream::try_unfold(start, |(mut chunks, missing, upload, failed)| async move {
            match chunks.next().await {
                Some(Ok(chunk)) => {
                    upload.record_progress();
                    let missing = missing.saturating_sub(chunk.len() as u64);
                    Ok(Some((chunk, (chunks, missing, upload, failed))))
                }
                Some(Err(error)) => Err(upload.fail(failed(error.to_string()))),
                None if missing > 0 => Err(upload.fail(failed("it was truncated during the upload".into()))),
                None => Ok(None),
            }
        })
    }

    /// Waits for the response head, for at most `timeout` after the last progress of the upload, and until `deadline`.
    pub(crate) async fn response(
        &self,
        timeout: Duration,
        deadline: Instant,
        response: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response, Failure> {
        // The time to open the files does not count.
        self.record_progress();
        let mut response = pin!(response);
        loop {
            let end = self.state().last_progress.checked_add(timeout).map_or(deadline, |end| end.min(deadline));
            if let Ok(response) = time::timeout_at(end, response.as_mut()).await {
                return response.map_err(|error| match self.state().file_error.take() {
                    // A server does not execute a request that is incomplete.
                    Some(file_error) => Failure::permanent(file_error),
                    None => Failure::of_sending(error),
                });
            }
            let is_stalled = self.state().last_progress.elapsed() >= timeout;
            if is_stalled || Instant::now() >= deadline {
                return Err(expired(Part::Head, timeout, deadline));
            }
        }
    }

    fn record_progress(&self) {
        self.state().last_progress = Instant::now();
    }

    fn fail(&self, error: Error) -> UploadError {
        self.state().file_error = Some(error);
        UploadError
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Aborts the request. [`Upload`] stores the cause.
#[derive(Debug, thiserror::Error)]
#[error("the upload failed")]
pub(crate) struct UploadError;
