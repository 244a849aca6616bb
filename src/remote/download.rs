//! Fetching an image from the address that an answer gave.

use std::time::Instant;

use futures_util::stream;
use reqwest::{Response, Url};

use super::body;
use super::transport::Transport;
use crate::backend::ByteStream;
use crate::error::{Error, ErrorKind};

/// The image at `address`, as it comes: at most `limit` bytes, before the total time-out.
pub(super) async fn fetch(transport: &Transport, address: &str) -> Result<ByteStream, Error> {
    let malformed = || Error::new(ErrorKind::InvalidResponse, "the image's address is no http or https address");
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(malformed)?;
    let deadline = Instant::now() + transport.timeout;
    let response = transport.download(url, deadline).await?;
    let (transport_timeout, idle, limit) = (transport.timeout, transport.idle, transport.limit);
    let start = Download { response, left: limit };
    Ok(Box::pin(stream::try_unfold(start, move |mut download| async move {
        let piece = tokio::time::timeout_at(deadline.into(), body::next(&mut download.response, idle)).await;
        let piece = match piece {
            Ok(piece) => piece.map_err(|failure| failure.error.with_maybe_billed(false))?,
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "the download did not end before the deadline");
                return Err(error.with_attempts(1, transport_timeout));
            }
        };
        let Some(piece) = piece else { return Ok(None) };
        download.left = download.left.checked_sub(piece.len()).ok_or_else(|| {
            let message =
                format!("the image is larger than the limit of {limit} bytes; raise it with `.max_response_bytes(..)`");
            Error::new(ErrorKind::InvalidResponse, message)
        })?;
        Ok(Some((piece, download)))
    })))
}

struct Download {
    response: Response,
    /// How many more bytes may come.
    left: usize,
}
