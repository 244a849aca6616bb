//! Images that lie at addresses, fetched.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future};

use crate::backend::{Backend, BoxFuture, ByteStream, Content, ImageData, Output};
use crate::error::{Error, ErrorKind};
use crate::retry::RetryPolicy;

/// Fetches the image at `address` into memory.
pub(crate) async fn bytes<B: Backend + ?Sized>(backend: &B, address: &str) -> Result<Bytes, Error> {
    stream(backend, address, whole).await
}

async fn whole(mut stream: ByteStream) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole.freeze())
}

/// Fetches the image at `address` and has `receive` read it, again from its start where the stream breaks.
pub(crate) async fn stream<B: Backend + ?Sized, T, F: Future<Output = Result<T, Error>>>(
    backend: &B,
    address: &str,
    receive: impl Fn(ByteStream) -> F,
) -> Result<T, Error> {
    let policy = RetryPolicy::default();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match receive(backend.fetch(address).await?).await {
            Ok(received) => return Ok(received),
            Err(error) => error,
        };
        // A failure that counts its tries has had them.
        let broke = error.attempts() == 0
            && matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Upstream);
        match policy.next_wait(attempts, &error, None).filter(|_| broke) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return Err(error),
        }
    }
}

/// Fetches all images that came as addresses although bytes were asked for, at the same time.
///
/// They are paid for, so one that cannot be fetched costs no other: it is left out, and a warning says so. Where none
/// is left the error says that they may have been billed. What has not come by the `deadline` cannot be fetched.
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
    for (index, fetched) in future::join_all(fetches).await.into_iter().enumerate() {
        match fetched {
            Ok(image) => images.push(image),
            Err(error) => {
                metadata.warnings.push(format!("image {} is left out: {error}", index + 1));
                first_failure.get_or_insert(error);
            }
        }
    }
    match first_failure {
        Some(error) if images.is_empty() => {
            let error = error.with_maybe_billed(true);
            Err(match metadata.request_id {
                Some(id) => error.with_request_id(id),
                None => error,
            })
        }
        _ => Ok(Output { images, metadata }),
    }
}

async fn with_bytes<B: Backend + ?Sized>(
    backend: &B,
    image: ImageData,
    deadline: Option<Instant>,
) -> Result<ImageData, Error> {
    let Content::Address(address) = &image.content else { return Ok(image) };
    let fetch = bytes(backend, address);
    let bytes = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), fetch).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "the image was made but could not be fetched before the deadline"))
        }),
        None => fetch.await,
    };
    Ok(ImageData { content: Content::Bytes(bytes?), ..image })
}
