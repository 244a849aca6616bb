//! Reading of response bodies, with limits for size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Response, Url};

use super::failure::Failure;
use super::timeout::{Part, within};
use crate::backend::RequestContext;
use crate::error::{Error, ErrorKind};
use crate::remote::secrets::Secrets;
use tokio::time::Instant;

/// The maximum buffer that is allocated because a `Content-Length` announces it.
const MAX_PREALLOCATION: usize = 256 << 20;

/// The body of a response that is being read.
pub(crate) struct Body<'a> {
    response: Response,
    pub(crate) secrets: &'a Secrets,
    /// The base URL of the service, to which relative URLs are joined.
    pub(crate) base: &'a Url,
    /// Receives partial images.
    pub(crate) context: &'a RequestContext,
    /// The `Content-Length`; 0 if there is none.
    announced: usize,
    received: usize,
    limits: Limits,
}

/// The limits of a response body.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    /// The maximum time between the head and the first byte: some servers send the head before they generate the image.
    pub(crate) first_byte_timeout: Duration,
    /// The maximum time between two later chunks.
    pub(crate) idle_timeout: Duration,
    pub(crate) deadline: Instant,
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        response: Response,
        secrets: &'a Secrets,
        base: &'a Url,
        context: &'a RequestContext,
        limits: Limits,
    ) -> Self {
        let announced = response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        Self { response, secrets, base, context, announced, received: 0, limits }
    }

    /// Returns the media type of the response.
    pub(crate) fn media_type(&self) -> Option<&str> {
        super::headers::text(self.response.headers(), CONTENT_TYPE.as_str())
    }

    /// Takes the headers out of the response.
    pub(crate) fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(self.response.headers_mut())
    }

    /// Returns how many bytes to allocate for the body.
    pub(crate) fn capacity(&self) -> usize {
        if self.announced > self.limits.bytes { 0 } else { self.announced.min(MAX_PREALLOCATION) }
    }

    /// Returns the next chunk, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Limits { bytes: limit, first_byte_timeout, idle_timeout, deadline } = self.limits;
        if self.announced > limit {
            return Err(too_large(limit));
        }
        let timeout = if self.received == 0 { first_byte_timeout } else { idle_timeout };
        let Some(chunk) = next(&mut self.response, timeout, deadline).await? else {
            // HTTP/2 can end a response early without an error.
            return if self.received < self.announced { Err(truncated()) } else { Ok(None) };
        };
        self.received = self.received.saturating_add(chunk.len());
        if self.received > limit { Err(too_large(limit)) } else { Ok(Some(chunk)) }
    }

    /// Reads the whole body.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::with_capacity(self.capacity());
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// The received part of an error response's body.
pub(crate) struct PartialBody {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_complete: bool,
}

/// Reads up to `limit` bytes of an error response. A body that cannot be read completely still helps to explain the error.
pub(crate) async fn read_partial(
    mut response: Response,
    limit: usize,
    idle_timeout: Duration,
    deadline: Instant,
) -> PartialBody {
    let mut bytes = Vec::new();
    let is_complete = loop {
        match next(&mut response, idle_timeout, deadline).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            end => break end.is_ok(),
        }
        if bytes.len() > limit {
            bytes.truncate(limit);
            break false;
        }
    };
    PartialBody { bytes, is_complete }
}

/// Returns the next chunk of a response.
pub(crate) async fn next(
    response: &mut Response,
    timeout: Duration,
    deadline: Instant,
) -> Result<Option<Bytes>, Failure> {
    within(timeout, deadline, Part::Body, response.chunk()).await
}

/// A response body that is shorter than its `Content-Length`.
pub(crate) fn truncated() -> Failure {
    let message = "the response was truncated: fewer bytes were received than announced";
    Failure::ambiguous(Error::new(ErrorKind::Connection, message))
}

fn too_large(limit: usize) -> Failure {
    Failure::unusable_response(format!(
        "the response is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`, or request URLs \
         instead of bytes"
    ))
}
