//! What goes wrong on purpose.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Received, refusal};
use crate::testing::http::Answer;

/// In how many pieces a slow answer comes.
const PIECES: usize = 10;

/// What goes wrong with a request for images, or with the download of one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// An answer with this status and no explanation.
    Status(u16),
    /// An answer with this status and a code of the gateway.
    Code(u16, String),
    /// 429 with a wait to obey.
    RateLimited(Duration),
    /// 429 with a date to wait for, which counts in whole seconds.
    RateLimitedUntil(SystemTime),
    /// The connection breaks before the answer.
    Reset,
    /// The connection breaks in the middle of the answer. The images that came whole by then are kept.
    ResetInBody,
    /// No answer for this time, and then the right one.
    Delay(Duration),
    /// No answer at all: it ends when the client goes away.
    Hang,
    /// The right answer, whose body comes in ten pieces with this time before each.
    Drip(Duration),
    /// An answer that is not JSON.
    Garbage,
    /// The first half of the right answer, as if it were all. The images that it holds whole are kept.
    Truncated,
    /// The right answer, with spaces behind it up to this many bytes.
    Oversize(usize),
    /// An answer without images.
    NoImages,
    /// Addresses where bytes were asked for, and bytes where addresses were. A download has nothing of the kind.
    OtherDelivery,
}

impl Fault {
    /// The answer of a gateway that does not execute the request.
    pub(super) fn refusal(&self) -> Option<Answer> {
        let rate_limited = || refusal(429, "RATE_LIMITED", "slow down");
        match self {
            Self::Status(status) => Some(Answer::new(*status, Vec::new())),
            Self::Code(status, code) => Some(refusal(*status, code, "a fault that the test asked for")),
            Self::RateLimited(wait) => Some(rate_limited().header("retry-after-ms", &wait.as_millis().to_string())),
            Self::RateLimitedUntil(date) => Some(rate_limited().header("retry-after", &httpdate::fmt_http_date(*date))),
            _ => None,
        }
    }
}

/// The faults that were asked for.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) next: VecDeque<Fault>,
    pub(super) rule: Option<Rule>,
}

/// What decides about a fault by the request that asks for images, or that asked for those that are fetched.
#[derive(Clone)]
pub(super) struct Rule(pub(super) Arc<Decide>);

pub(super) type Decide = dyn Fn(&Received) -> Option<Fault> + Send + Sync;

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rule")
    }
}

/// Waits as long as the fault says before there is an answer. There is none where the client went away.
pub(super) async fn hold(stream: &mut TcpStream, fault: Option<&Fault>) -> bool {
    match fault {
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Hang) => {
            wait_for_end(stream).await;
            return false;
        }
        _ => {}
    }
    true
}

/// Answers, as well as the fault allows, and tells whether the connection can go on.
pub(super) async fn deliver(stream: &mut TcpStream, fault: Option<Fault>, mut answer: Answer) -> io::Result<bool> {
    match fault {
        Some(Fault::Reset) => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Some(Fault::ResetInBody) => {
            stream.write_all(answer.head().as_bytes()).await?;
            stream.write_all(first_half(&answer.body)).await?;
            return Ok(false);
        }
        Some(Fault::Drip(wait)) => {
            drip(stream, &answer, wait).await?;
            return Ok(true);
        }
        Some(Fault::Garbage) => answer.body = b"<html>".to_vec(),
        Some(Fault::NoImages) => answer.body = b"{\"data\":[]}".to_vec(),
        Some(Fault::Truncated) => answer.body = first_half(&answer.body).to_vec(),
        Some(Fault::Oversize(length)) => answer.body.resize(length.max(answer.body.len()), b' '),
        _ => {}
    }
    answer.write(stream).await?;
    // After these a client reads no body.
    Ok(!matches!(answer.status, 100..200 | 204 | 304))
}

fn first_half(body: &[u8]) -> &[u8] {
    body.get(..body.len() / 2).unwrap_or_default()
}

async fn drip(stream: &mut TcpStream, answer: &Answer, wait: Duration) -> io::Result<()> {
    stream.write_all(answer.head().as_bytes()).await?;
    for piece in answer.body.chunks(answer.body.len().div_ceil(PIECES)) {
        tokio::time::sleep(wait).await;
        stream.write_all(piece).await?;
    }
    Ok(())
}

/// Until the client closes the connection, or breaks it.
async fn wait_for_end(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
}
