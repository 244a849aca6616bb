//! Downloads of images.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Response, Url};

use super::transport::{Time, Transport};
use crate::backend::{ByteStream, RequestContext};
use crate::error::{Error, ErrorKind};
use crate::remote::response::{body, images};
use crate::retry::{Attempts, RetryPolicy};
use tokio::time::Instant;

/// Downloads the image at `url`, within the limits for size and time of the transport.
///
/// An interrupted download is repeated according to the retry policy, and continues where it was interrupted.
pub(crate) async fn fetch(transport: &Arc<Transport>, url: &str) -> Result<ByteStream, Error> {
    if url.starts_with("data:") {
        let image = images::decode(url).map_err(|_| invalid("the data URL of the image is not valid base64"))?;
        return Ok(Box::pin(stream::iter([Ok(image)])));
    }
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| invalid("the URL of the image is not an http or https URL"))?;
    let Time { started, deadline } = transport.start(None);
    let response = transport.download(url.clone(), &transport.retry, deadline).await?;
    let version = Version::of(&response);
    if version.length.is_some_and(|length| length > transport.max_response_bytes as u64) {
        return Err(too_large(transport.max_response_bytes));
    }
    let attempts = Attempts::new(&transport.retry, Some(deadline), started);
    let transport = Arc::clone(transport);
    let download = Download { transport, url, deadline, attempts, version, response, position: 0, yielded: 0 };
    Ok(Box::pin(stream::try_unfold(download, |mut download| async move {
        Ok(download.next().await?.map(|chunk| (chunk, download)))
    })))
}

struct Download {
    transport: Arc<Transport>,
    url: Url,
    deadline: Instant,
    attempts: Attempts,
    version: Version,
    response: Response,
    /// How many bytes of the current response were received.
    position: usize,
    /// How many bytes of the image were yielded.
    yielded: usize,
}

/// Identifies the content of a URL.
#[derive(PartialEq)]
struct Version {
    length: Option<u64>,
    tag: Option<HeaderValue>,
}

impl Version {
    fn of(response: &Response) -> Self {
        // A weak tag does not promise the same bytes (RFC 9110, 8.8.1).
        let tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
        Self { length: response.content_length(), tag: tag.cloned() }
    }
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let mut chunk = body::next(&mut self.response, self.transport.idle_timeout, self.deadline).await;
            let is_truncated = self.version.length.is_some_and(|length| (self.position as u64) < length);
            if matches!(chunk, Ok(None)) && is_truncated {
                chunk = Err(body::truncated());
            }
            match chunk {
                Ok(Some(chunk)) => match self.unseen(chunk)? {
                    unseen if unseen.is_empty() => {}
                    unseen => return Ok(Some(unseen)),
                },
                Ok(None) if self.position < self.yielded => return Err(changed()),
                Ok(None) => return Ok(None),
                Err(failure) => self.restart(failure.error.with_maybe_billed(false)).await?,
            }
        }
    }

    /// Returns the part of `chunk` that was not yielded before.
    fn unseen(&mut self, mut chunk: Bytes) -> Result<Bytes, Error> {
        let limit = self.transport.max_response_bytes;
        let seen = self.yielded.saturating_sub(self.position).min(chunk.len());
        self.position = self.position.saturating_add(chunk.len());
        if self.position > limit {
            return Err(too_large(limit));
        }
        self.yielded = self.yielded.max(self.position);
        Ok(chunk.split_off(seen))
    }

    /// Requests the image again, if nothing was yielded yet or its tag proves that the content is the same.
    async fn restart(&mut self, mut error: Error) -> Result<(), Error> {
        let is_identifiable = self.yielded == 0 || self.version.tag.is_some();
        while self
            .attempts
            .retry_after(&error, is_identifiable && error.is_transient(), &RequestContext::default())
            .await
        {
            match self.transport.download(self.url.clone(), &RetryPolicy::none(), self.deadline).await {
                Ok(response) if self.yielded == 0 || Version::of(&response) == self.version => {
                    self.version = Version::of(&response);
                    self.response = response;
                    self.position = 0;
                    return Ok(());
                }
                Ok(_) => return Err(changed()),
                Err(failure) => error = failure,
            }
        }
        Err(error.with_attempts(self.attempts.failed, self.attempts.elapsed()))
    }
}

fn too_large(limit: usize) -> Error {
    invalid(&format!("the image is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`"))
}

fn changed() -> Error {
    invalid("the image changed during the download; download it again")
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidResponse, message)
}
