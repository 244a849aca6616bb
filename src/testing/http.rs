//! As much HTTP/1.1 as the mock of the gateway needs: one request after the other, bodies with a length.

use std::io;

use reqwest::Url;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Whether it is of HTTP/1.0, which keeps no connection.
    is_old: bool,
}

/// What a request's body said, whichever way it was written.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) fields: Map<String, Value>,
    /// The names of the files' fields, and the files.
    pub(super) files: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// The next request of the connection; none where the client has closed it.
    pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let mut body = bytes.split_off(end + 4);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_old = words.next() == Some("HTTP/1.0");
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let mut request =
            Self { method: method.into(), path: path.into(), query: query.into(), headers, body: Vec::new(), is_old };
        let length: usize = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        request.body = body;
        Ok(Some(request))
    }

    /// Whether it is the connection's last: after a `HEAD` or a body without a length nobody would know where the next begins.
    pub(super) fn is_last(&self) -> bool {
        let closes = self.header("connection").is_some_and(|connection| connection.eq_ignore_ascii_case("close"));
        closes || self.is_old || self.method == "HEAD" || self.header("transfer-encoding").is_some()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of its query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let url = Url::parse(&format!("http://mock/?{}", self.query)).ok()?;
        url.query_pairs().find(|(given, _)| given == name).map(|(_, value)| value.into_owned())
    }

    /// How many bytes its body has.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// The fields and files of a JSON or multipart body; nothing where it is neither.
    pub(super) fn form(&self) -> Form {
        match self.header("content-type").and_then(|kind| kind.strip_prefix("multipart/form-data; boundary=")) {
            Some(boundary) => multipart(&self.body, boundary),
            None => Form { fields: serde_json::from_slice(&self.body).unwrap_or_default(), files: Vec::new() },
        }
    }
}

fn multipart(body: &[u8], boundary: &str) -> Form {
    let mut form = Form::default();
    let delimiter = format!("--{boundary}");
    let mut rest = body;
    while let Some(start) = find(rest, delimiter.as_bytes()) {
        rest = rest.get(start + delimiter.len()..).unwrap_or_default();
        let part = rest.get(..find(rest, delimiter.as_bytes()).unwrap_or(0)).unwrap_or_default();
        let Some(end) = find(part, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(part.get(..end).unwrap_or_default());
        let content = part.get(end + 4..).unwrap_or_default();
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        let Some(name) = head.split(" name=\"").nth(1).and_then(|rest| rest.split('"').next()) else { continue };
        if head.contains(" filename=\"") {
            form.files.push((name.to_owned(), content.to_vec()));
        } else {
            form.fields.insert(name.to_owned(), value(name, &String::from_utf8_lossy(content)));
        }
    }
    form
}

/// A form has only text; these fields are numbers.
fn value(name: &str, text: &str) -> Value {
    match name {
        "n" | "output_compression" => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// What the mock says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: String::new(), body }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string().into_bytes()).header("content-type", "application/json")
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// What goes before the body.
    pub(super) fn head(&self) -> String {
        let Self { status, headers, body } = self;
        let length = body.len();
        format!("HTTP/1.1 {status} -\r\n{headers}content-length: {length}\r\n\r\n")
    }

    /// Writes it, in one go.
    pub(super) async fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(&[self.head().as_bytes(), &self.body].concat()).await
    }
}
