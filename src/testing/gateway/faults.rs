//! The faults that the mock gateway produces on request.

use std::collections::VecDeque;
use std::fmt;
use std::future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::time;

use super::account::Received;
use super::http::{Reply, Response};

/// A fault in the response to an image request or to the download of an image.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Responds with this status and an empty body, without executing the request. Use a status of at least 200.
    Status(u16),
    /// Responds with this status and this error code of the gateway, without executing the request.
    Code(u16, String),
    /// Responds with status 429 and the time to wait in `retry-after-ms`, without executing the request.
    RateLimited(Duration),
    /// Executes the request, but resets the connection before the response.
    Reset,
    /// Closes the connection after half of the response body. A client can keep the images that it has received
    /// completely.
    ResetInBody,
    /// Sends the response after this time.
    Delay(Duration),
    /// Never responds and does not execute the request.
    Hang,
    /// Sends the response body in ten parts and waits this long before each of them.
    Drip(Duration),
    /// Responds with a body that is not JSON.
    Garbage,
    /// Responds with the first half of the body, with a matching `content-length`. A client can keep the images that
    /// are complete.
    Truncated,
    /// Pads the response body with spaces to at least this many bytes.
    Oversize(usize),
    /// Responds with an empty list of images.
    NoImages,
    /// Returns URLs if bytes were requested, and bytes if URLs were requested. Does not affect downloads.
    OtherDelivery,
}

impl Fault {
    /// Returns the error response of a gateway that does not execute the request.
    pub(super) fn refusal(&self) -> Option<Reply> {
        match self {
            Self::Status(status) => Some(Reply::new(*status, Bytes::new())),
            Self::Code(status, code) => Some(Reply::error(*status, code, "the test requested this error")),
            Self::RateLimited(wait) => {
                let reply = Reply::error(429, "RATE_LIMITED", "slow down");
                Some(reply.header("retry-after-ms", wait.as_millis().to_string()))
            }
            _ => None,
        }
    }
}

/// Decides on a fault from an image request, or from the image request whose image is downloaded.
pub(super) type Rule = dyn Fn(&Received) -> Option<Fault> + Send + Sync;

/// The faults that the test has requested.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) queue: VecDeque<Fault>,
    pub(super) rule: Option<Arc<Rule>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Waits as long as the fault delays the response.
pub(super) async fn wait(fault: Option<&Fault>) {
    match fault {
        Some(Fault::Delay(delay)) => time::sleep(*delay).await,
        Some(Fault::Hang) => future::pending().await,
        _ => {}
    }
}

/// Builds the response with the fault applied to it. An error of kind `ConnectionReset` requests a reset.
pub(super) fn respond(fault: Option<Fault>, mut reply: Reply) -> io::Result<Response> {
    let half = reply.body.slice(..reply.body.len() / 2);
    match fault {
        Some(Fault::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::ResetInBody) => {
            // hyper sends the first part only if the next one is not ready yet.
            return send_parts(
                reply,
                vec![Ok(half), Err(io::ErrorKind::UnexpectedEof.into())],
                Duration::from_millis(1),
            );
        }
        Some(Fault::Drip(wait)) => {
            let size = reply.body.len().div_ceil(10).max(1);
            let parts = reply.body.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            return send_parts(reply, parts, wait);
        }
        Some(Fault::Garbage) => reply.body = Bytes::from_static(b"<html>"),
        Some(Fault::NoImages) => reply.body = Bytes::from_static(b"{\"data\":[]}"),
        Some(Fault::Truncated) => reply.body = half,
        Some(Fault::Oversize(length)) => {
            let mut body = reply.body.to_vec();
            body.resize(length.max(body.len()), b' ');
            reply.body = body.into();
        }
        _ => {}
    }
    let body = Full::new(reply.body.clone()).map_err(|never| match never {});
    reply.with_body(body.boxed_unsync())
}

/// Builds a response that waits before each part of its body and declares the length of the complete body.
fn send_parts(reply: Reply, parts: Vec<io::Result<Bytes>>, wait: Duration) -> io::Result<Response> {
    let length = reply.body.len().to_string();
    let parts = stream::iter(parts).then(move |part| async move {
        time::sleep(wait).await;
        part.map(Frame::data)
    });
    reply.header("content-length", length).with_body(StreamBody::new(parts).boxed_unsync())
}
