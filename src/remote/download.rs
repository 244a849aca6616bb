//! Fetching an image from the address that an answer gave.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Response, Url};

use super::answer;
use super::body;
use super::transport::{Time, Transport};
use crate::backend::ByteStream;
use crate::error::{Error, ErrorKind};
use crate::retry::RetryPolicy;

/// The image at `address`, as it comes: at most `limit` bytes, before the total time-out. Where it breaks off it is begun
/// again, as the client's policy says, and goes on where it was.
pub(super) async fn fetch(transport: &Arc<Transport>, address: &str) -> Result<ByteStream, Error> {
    if address.starts_with("data:") {
        let image =
            answer::decode(address.to_owned()).map_err(|_| malformed("the image's address holds no valid base64"))?;
        return Ok(Box::pin(stream::iter([Ok(image)])));
    }
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| malformed("the image's address is no http or https address"))?;
    let Time { started, deadline } = transport.begin(None);
    let response = transport.download(url.clone(), &transport.retry, deadline).await?;
    let version = Version::of(&response);
    if version.length.is_some_and(|length| length > transport.limit as u64) {
        return Err(too_large(transport.limit));
    }
    let transport = Arc::clone(transport);
    let start = Download { transport, url, started, deadline, attempts: 1, version, response, position: 0, given: 0 };
    Ok(Box::pin(stream::try_unfold(start, |mut download| async move {
        Ok(download.next().await?.map(|piece| (piece, download)))
    })))
}

struct Download {
    transport: Arc<Transport>,
    url: Url,
    started: Instant,
    deadline: Instant,
    attempts: u32,
    version: Version,
    response: Response,
    /// How many bytes of this answer have come.
    position: usize,
    /// How many bytes of the image have been passed on.
    given: usize,
}

/// What tells whether an address still has the same content.
#[derive(PartialEq)]
struct Version {
    length: Option<u64>,
    tag: Option<HeaderValue>,
}

impl Version {
    fn of(response: &Response) -> Self {
        // A weak tag promises the same picture, not the same bytes (RFC 9110, 8.8.1).
        let tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
        Self { length: response.content_length(), tag: tag.cloned() }
    }
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let mut piece = body::next(&mut self.response, self.transport.idle, self.deadline).await;
            if matches!(piece, Ok(None)) && self.version.length.is_some_and(|length| (self.position as u64) < length) {
                piece = Err(body::cut_short());
            }
            match piece {
                Ok(Some(piece)) => match self.new_part(piece)? {
                    part if part.is_empty() => {}
                    part => return Ok(Some(part)),
                },
                Ok(None) if self.position < self.given => return Err(changed()),
                Ok(None) => return Ok(None),
                Err(failure) => self.begin_again(failure.error.with_maybe_billed(false)).await?,
            }
        }
    }

    /// What of `piece` has not been passed on before.
    fn new_part(&mut self, mut piece: Bytes) -> Result<Bytes, Error> {
        let limit = self.transport.limit;
        let seen = self.given.saturating_sub(self.position).min(piece.len());
        self.position = self.position.saturating_add(piece.len());
        if self.position > limit {
            return Err(too_large(limit));
        }
        self.given = self.given.max(self.position);
        Ok(piece.split_off(seen))
    }

    /// Where nothing has been passed on yet, or the service's own tag tells that the content is still the same.
    async fn begin_again(&mut self, mut error: Error) -> Result<(), Error> {
        let may = self.given == 0 || self.version.tag.is_some();
        while let Some(wait) =
            self.transport.retry.next_wait(self.attempts, &error, Some(self.deadline)).filter(|_| may && passes(&error))
        {
            tokio::time::sleep(wait).await;
            self.attempts += 1;
            // The tries are counted here.
            match self.transport.download(self.url.clone(), &RetryPolicy::none(), self.deadline).await {
                Ok(response) if self.given == 0 || Version::of(&response) == self.version => {
                    self.version = Version::of(&response);
                    self.response = response;
                    self.position = 0;
                    return Ok(());
                }
                Ok(_) => return Err(changed()),
                Err(failure) => error = failure,
            }
        }
        Err(error.with_attempts(self.attempts, self.started.elapsed()))
    }
}

fn passes(error: &Error) -> bool {
    let kinds = [ErrorKind::Connection, ErrorKind::Timeout, ErrorKind::RateLimited, ErrorKind::Upstream];
    kinds.contains(&error.kind())
}

fn too_large(limit: usize) -> Error {
    let message =
        format!("the image is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`");
    Error::new(ErrorKind::InvalidResponse, message)
}

fn malformed(message: &str) -> Error {
    Error::new(ErrorKind::InvalidResponse, message)
}

fn changed() -> Error {
    Error::new(ErrorKind::InvalidResponse, "the image changed while it was fetched; fetch it again")
}
