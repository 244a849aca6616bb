//! A server that can break HTTP/1.1 anywhere. It runs in the test's own runtime, so it also works with a paused clock.

use std::future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::clock::wait;

/// The reaction of the server to a request, after which it closes the connection.
#[derive(Clone)]
pub(crate) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends the first bytes, and the others after a pause.
    Pause(Vec<u8>, Duration, Vec<u8>),
    /// Sends these bytes and resets the connection.
    Reset(Vec<u8>),
    /// Sends these bytes and nothing more.
    Hang(Vec<u8>),
    /// Sends these bytes one at a time, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Sends these bytes again and again.
    Repeat(Vec<u8>),
    /// Sends these bytes after a part of the request and reads the rest, or without bytes resets the connection.
    Interrupt(Vec<u8>),
    /// Reads the body with a pause after each 2 MiB, then sends these bytes.
    ReadSlowly(Duration, Vec<u8>),
}

/// An HTTP response as bytes. `headers` is empty or a list of lines, each of which ends with `\r\n`.
pub(crate) fn response(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) struct RawServer {
    pub(crate) uri: String,
    /// The method and target of each request, such as `GET /1.png?size=1`.
    requests: Arc<Mutex<Vec<String>>>,
}

impl RawServer {
    /// Starts a server that performs these acts in order and repeats the last one.
    pub(crate) async fn start(acts: impl Into<Vec<Act>>) -> Self {
        let acts = acts.into();
        Self::routed(move |_, earlier| acts[earlier.min(acts.len() - 1)].clone()).await
    }

    /// Starts a server that chooses an act by the method and target of a request and by the number of earlier requests with the
    /// same method and target.
    pub(crate) async fn routed(choose: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (log, choose) = (Arc::clone(&requests), Arc::new(choose));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Otherwise the system delays small writes for real time, even if the test's clock is paused.
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, Arc::clone(&choose), Arc::clone(&log)));
            }
        });
        Self { uri, requests }
    }

    /// The number of requests that were read.
    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// The number of requests with this method and target.
    pub(crate) fn count(&self, request: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|line| *line == request).count()
    }
}

async fn serve(
    mut stream: TcpStream,
    choose: Arc<impl Fn(&str, usize) -> Act>,
    log: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    const PART: usize = 64 * 1024;
    let (line, body) = read_head(&mut stream).await?;
    let earlier = log.lock().unwrap().iter().filter(|earlier| **earlier == line).count();
    let act = choose(&line, earlier);
    match &act {
        Act::Interrupt(_) => read(&mut stream, PART).await?,
        Act::ReadSlowly(pause, _) => {
            for start in (0..body).step_by(32 * PART) {
                read(&mut stream, (body - start).min(32 * PART)).await?;
                wait(*pause).await;
            }
        }
        _ => read(&mut stream, body).await?,
    }
    log.lock().unwrap().push(line);
    match act {
        Act::Send(bytes) | Act::ReadSlowly(_, bytes) => stream.write_all(&bytes).await.ok()?,
        Act::Pause(first, pause, rest) => {
            stream.write_all(&first).await.ok()?;
            wait(pause).await;
            stream.write_all(&rest).await.ok()?;
        }
        Act::Reset(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            // The client must receive the bytes before the reset discards them.
            wait(Duration::from_millis(50)).await;
            stream.set_zero_linger().unwrap();
        }
        Act::Hang(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            future::pending::<()>().await;
        }
        Act::Drip(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await.ok()?;
                wait(pause).await;
            }
        }
        Act::Repeat(bytes) => while stream.write_all(&bytes).await.is_ok() {},
        Act::Interrupt(bytes) if bytes.is_empty() => stream.set_zero_linger().unwrap(),
        Act::Interrupt(bytes) => {
            stream.write_all(&bytes).await.ok()?;
            stream.shutdown().await.ok()?;
            read(&mut stream, usize::MAX).await?;
        }
    }
    stream.shutdown().await.ok()
}

/// Reads the head of a request. Returns its method and target, and the number of bytes of the body that are still to be read, or
/// `None` if this is not HTTP.
async fn read_head(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.ok()? > 0 && bytes[0].is_ascii_alphabetic() {
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let line = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        return Some((line, length.unwrap_or(0_usize).saturating_sub(bytes.len() - head.len() - 4)));
    }
    None
}

async fn read(stream: &mut TcpStream, mut left: usize) -> Option<()> {
    let mut piece = vec![0; 64 * 1024];
    while left > 0 {
        let end = left.min(piece.len());
        left -= stream.read(&mut piece[..end]).await.ok().filter(|length| *length > 0)?;
    }
    Some(())
}
