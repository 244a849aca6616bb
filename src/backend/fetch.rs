//! Downloading generated images through the backend that generated them.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future, stream};

use super::{Backend, ByteStream, Content, ImageData, Output, before};
use crate::error::{Error, ErrorKind};

/// The number of bytes, without leading whitespace, that are searched for HTML and JSON.
const HEAD: usize = 32;
/// The number of leading bytes that may be whitespace.
const MAX_WHITESPACE: usize = 4096;

/// Streams the image at `url`. An empty body, an HTML page and JSON are errors.
pub(crate) async fn stream<B: Backend + ?Sized>(backend: &B, url: &str) -> Result<ByteStream, Error> {
    // `fuse`, because the stream is polled again below even if it ends within the head.
    let mut chunks = backend.fetch(url).await?.fuse();
    let mut head = BytesMut::new();
    while trim_start(&head).len() < HEAD && head.len() < MAX_WHITESPACE {
        match chunks.next().await {
            Some(chunk) => head.extend_from_slice(&chunk?),
            None => break,
        }
    }
    let text = trim_start(&head).to_ascii_lowercase();
    let found = match text.as_slice() {
        [] => "an empty body",
        html if html.starts_with(b"<!doctype html") || html.starts_with(b"<html") => "an HTML page",
        [b'{', ..] => "JSON",
        _ => return Ok(Box::pin(stream::iter([Ok(head.freeze())]).chain(chunks))),
    };
    let message = format!("the image URL returned {found} instead of an image; download it again later");
    Err(Error::new(ErrorKind::InvalidResponse, message))
}

/// Removes a byte order mark and whitespace.
fn trim_start(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start()
}

/// Downloads the image at `url` into memory.
pub(crate) async fn bytes<B: Backend + ?Sized>(backend: &B, url: &str) -> Result<Bytes, Error> {
    let mut chunks = stream(backend, url).await?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes.freeze())
}

/// Downloads all images that were returned as URLs, concurrently and before `deadline`.
///
/// All images have been paid for. So if some downloads fail, the others are returned, the failed ones become
/// [`Content::Unfetched`], and a warning is added for each. If all fail, the error contains the URLs.
pub(crate) async fn all<B: Backend + ?Sized>(
    backend: &B,
    output: Output,
    deadline: Option<Instant>,
) -> Result<Output, Error> {
    let Output { images, mut metadata } = output;
    let downloads: Vec<_> = images.into_iter().map(|image| download(backend, image, deadline)).collect();
    let (images, failures): (Vec<_>, Vec<_>) = future::join_all(downloads).await.into_iter().unzip();
    let mut first_error = None;
    for (index, failure) in failures.into_iter().enumerate() {
        let Some(error) = failure else { continue };
        metadata.warnings.push(format!("image {} could not be downloaded, its URL is kept: {error}", index + 1));
        first_error.get_or_insert(error);
    }
    if images.is_empty() || images.iter().any(|image| matches!(image.content, Content::Bytes(_))) {
        return Ok(Output { images, metadata });
    }
    let urls = images.into_iter().filter_map(|image| match image.content {
        Content::Unfetched(url) => Some(url),
        Content::Url(_) | Content::Bytes(_) => None,
    });
    let error = first_error.unwrap_or_else(|| {
        Error::new(ErrorKind::InvalidResponse, "no image could be downloaded; see `Error::unfetched_urls()`")
    });
    let error = error.with_bills(metadata.bills()).with_unfetched_urls(urls);
    Err(match metadata.request_id {
        Some(id) => error.with_request_id(id),
        None => error,
    })
}

/// Replaces the URL of an image by the downloaded bytes, or returns the image unchanged with the error.
async fn download<B: Backend + ?Sized>(
    backend: &B,
    image: ImageData,
    deadline: Option<Instant>,
) -> (ImageData, Option<Error>) {
    let Content::Url(url) = image.content else { return (image, None) };
    let late = || Error::new(ErrorKind::Timeout, "the deadline passed during the download");
    let downloaded = before(deadline, late, bytes(backend, &url)).await;
    let (content, error) = match downloaded.unwrap_or_else(Err) {
        Ok(bytes) => (Content::Bytes(bytes), None),
        Err(error) => (Content::Unfetched(url), Some(error)),
    };
    (ImageData { content, ..image }, error)
}
