//! The requests and responses of the mock gateway, with their bodies in memory.

use std::collections::HashMap;
use std::error::Error;
use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::header::CONTENT_TYPE;
use multer::Multipart;
use reqwest::Url;
use serde_json::{Map, Value, json};

pub(super) type Request = hyper::Request<Bytes>;
pub(super) type Response = hyper::Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Returns the value of a header, if it is text.
pub(super) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// Returns the query parameters.
pub(super) fn query(request: &Request) -> HashMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    let url = Url::parse(&format!("http://mock/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

/// The fields and files of a request body.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) fields: Map<String, Value>,
    /// Field names and contents of the files.
    pub(super) files: Vec<(String, Bytes)>,
}

impl Form {
    /// Reads a JSON or multipart body, or returns an error response.
    pub(super) async fn read(request: &Request) -> Result<Self, Reply> {
        let body = request.body().clone();
        let malformed = |error: &dyn Error| Reply::invalid(&format!("the body is malformed: {error}"));
        match header(request, CONTENT_TYPE.as_str()).map(multer::parse_boundary) {
            Some(Ok(boundary)) => Self::read_multipart(body, boundary).await.map_err(|error| malformed(&error)),
            _ => {
                let fields = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
                Ok(Self { fields, files: Vec::new() })
            }
        }
    }

    async fn read_multipart(body: Bytes, boundary: String) -> multer::Result<Self> {
        let mut form = Self::default();
        let mut parts = Multipart::new(stream::iter([Ok::<_, multer::Error>(body)]), boundary);
        while let Some(part) = parts.next_field().await? {
            let name = part.name().unwrap_or_default().to_owned();
            if part.file_name().is_some() {
                form.files.push((name, part.bytes().await?));
                continue;
            }
            let text = part.text().await?;
            let value = match &*name {
                "n" | "output_compression" => serde_json::from_str(&text).unwrap_or_else(|_| text.into()),
                _ => text.into(),
            };
            form.fields.insert(name, value);
        }
        Ok(form)
    }
}

/// A response that is not sent yet.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// The price of the request, in micro-dollars.
    pub(super) micros: u64,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), micros: 0 }
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string()).header("content-type", "application/json")
    }

    /// Returns an error response in the gateway's format.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "message": message, "type": "mock", "code": code } }))
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::error(400, "INVALID_REQUEST", message)
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Builds the response with `body` in place of its own body.
    pub(super) fn with_body(self, body: UnsyncBoxBody<Bytes, io::Error>) -> io::Result<Response> {
        let headers = self.headers.into_iter();
        let response = hyper::Response::builder().status(self.status);
        let response = headers.fold(response, |response, (name, value)| response.header(name, value));
        response.body(body).map_err(io::Error::other)
    }
}
