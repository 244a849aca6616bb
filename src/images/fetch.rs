//! Images that lie at addresses, fetched.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future, stream};

use crate::backend::{Backend, BoxFuture, ByteStream, Content, ImageData, Output};
use crate::error::{Bills, Error, ErrorKind};

/// So much is looked at to tell a page from an image.
const HEAD: usize = 32;
/// No image has so many spaces before it.
const MOST_SPACE: usize = 4096;

/// The image at `address`, as it comes. Nothing, and a page or an answer of somebody between, are no image.
pub(crate) async fn stream<B: Backend + ?Sized>(backend: &B, address: &str) -> Result<ByteStream, Error> {
    // It may end within the head, and is asked again after that.
    let mut pieces = backend.fetch(address).await?.fuse();
    let mut head = BytesMut::new();
    while text(&head).len() < HEAD && head.len() < MOST_SPACE {
        match pieces.next().await {
            Some(piece) => head.extend_from_slice(&piece?),
            None => break,
        }
    }
    let begins =
        |with: &str| text(&head).get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with.as_bytes()));
    let what = match () {
        () if text(&head).is_empty() => "empty",
        () if begins("<!doctype html") || begins("<html") => "a page, no image",
        () if begins("{") => "JSON, no image",
        () => return Ok(Box::pin(stream::iter([Ok(head.freeze())]).chain(pieces))),
    };
    Err(Error::new(ErrorKind::InvalidResponse, format!("what came from the image's address is {what}")))
}

/// Without what may stand before a text.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start()
}

/// Fetches the image at `address` into memory.
pub(crate) async fn bytes<B: Backend + ?Sized>(backend: &B, address: &str) -> Result<Bytes, Error> {
    let mut stream = stream(backend, address).await?;
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole.freeze())
}

/// Fetches all images that came as addresses although bytes were asked for, at the same time.
///
/// They are paid for, so one that cannot be fetched costs no other: it keeps its address, and a warning says so. Where none
/// comes at all the error has the addresses. What has not come by the `deadline` could not be fetched.
///
/// Boxed, since it is the rare case: the futures of all calls would have room for it.
pub(crate) fn all<'a, B: Backend + ?Sized>(
    backend: &'a B,
    output: Output,
    deadline: Option<Instant>,
) -> BoxFuture<'a, Result<Output, Error>> {
    Box::pin(fetch_all(backend, output, deadline))
}

async fn fetch_all<B: Backend + ?Sized>(
    backend: &B,
    output: Output,
    deadline: Option<Instant>,
) -> Result<Output, Error> {
    let Output { images, mut metadata } = output;
    let fetches: Vec<_> = images.into_iter().map(|image| with_bytes(backend, image, deadline)).collect();
    let mut images = Vec::new();
    let mut first_failure = None;
    for (index, (image, failure)) in future::join_all(fetches).await.into_iter().enumerate() {
        images.push(image);
        if let Some(error) = failure {
            metadata.warnings.push(format!("image {} is still at its address: {error}", index + 1));
            first_failure.get_or_insert(error);
        }
    }
    let none_came = images.iter().all(|image| !matches!(image.content, Content::Bytes(_)));
    match first_failure.filter(|_| none_came) {
        None => Ok(Output { images, metadata }),
        Some(error) => {
            let addresses = images.into_iter().filter_map(|image| match image.content {
                Content::Unfetched(address) => Some(address),
                Content::Address(_) | Content::Bytes(_) => None,
            });
            let bills = Bills { tries: metadata.lost_bills.saturating_add(1), made: true };
            let error = error.with_bills(bills).with_addresses(addresses);
            Err(match metadata.request_id {
                Some(id) => error.with_request_id(id),
                None => error,
            })
        }
    }
}

/// The image with its bytes, or with its address and the reason why.
async fn with_bytes<B: Backend + ?Sized>(
    backend: &B,
    image: ImageData,
    deadline: Option<Instant>,
) -> (ImageData, Option<Error>) {
    let Content::Address(address) = image.content else { return (image, None) };
    let fetch = bytes(backend, &address);
    let fetched = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), fetch)
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "it could not be fetched before the deadline"))),
        None => fetch.await,
    };
    let (content, failure) = match fetched {
        Ok(bytes) => (Content::Bytes(bytes), None),
        Err(error) => (Content::Unfetched(address), Some(error)),
    };
    (ImageData { content, ..image }, failure)
}
