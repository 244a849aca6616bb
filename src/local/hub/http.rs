//! The requests to the Hub.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE, USER_AGENT,
};
use reqwest::{Method, Request, Response, StatusCode, Url};
use serde::Deserialize;

use crate::error::{Error, ErrorKind};
use crate::remote::http::client::{AGENT, HttpClient};
use crate::remote::http::settings::Settings;
use crate::remote::http::transport::Billing;

/// The time until the head of a response has been received.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A repository on the Hub.
pub(super) struct Hub {
    client: HttpClient,
    endpoint: Url,
    token: Option<HeaderValue>,
    repository: String,
}

/// The state of a revision.
pub(super) struct Info {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file of a commit.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    /// The name of the content. For large files it is the SHA-256 hash.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Hub {
    pub(super) fn new(endpoint: &str, token: Option<&str>, repository: &str) -> Result<Self, Error> {
        let invalid = |message: String| Error::new(ErrorKind::Configuration, message);
        let endpoint = Url::parse(&format!("{}/", endpoint.trim_end_matches('/')))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none())
            .ok_or_else(|| invalid("the endpoint of the Hub (`HF_ENDPOINT`) is not an http or https URL".into()))?;
        let token = token.map(|token| -> Result<_, Error> {
            let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                invalid(
                    "the token of the Hub (`HF_TOKEN`) contains a character that no token has; copy it again".into(),
                )
            })?;
            header.set_sensitive(true);
            Ok(header)
        });
        let client = HttpClient::new(&Settings::default(), &endpoint)?;
        Ok(Self { client, endpoint, token: token.transpose()?, repository: repository.to_owned() })
    }

    /// Returns the commit of a revision and its files.
    pub(super) async fn info(&self, revision: &str) -> Result<Info, Error> {
        #[derive(Deserialize)]
        struct Body {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }

        let what = format!("the revision `{revision}`");
        let revision = utf8_percent_encode(revision, UNRESERVED);
        let url = self.url(&format!("api/models/{}/revision/{revision}", self.repository))?;
        let response = self.send(Method::GET, url, None, &what).await?;
        let body = tokio::time::timeout(TIMEOUT, response.bytes()).await.map_err(|_| self.timeout(&what))?;
        let body = body.map_err(|error| self.disconnected(&what, error))?;
        let body: Body = serde_json::from_slice(&body)
            .map_err(|_| self.invalid(&what, "is not described in the format of the Hub"))?;
        let commit = path_segment(&body.sha).ok_or_else(|| self.invalid(&what, "has a malformed commit"))?;
        Ok(Info { commit, files: body.siblings.into_iter().map(|sibling| sibling.rfilename).collect() })
    }

    /// Returns the size and the ETag of a file.
    pub(super) async fn describe(&self, commit: &str, name: &str) -> Result<RemoteFile, Error> {
        let what = format!("the file `{name}`");
        let response = self.send(Method::HEAD, self.file_url(commit, name)?, None, &what).await?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        if header("x-repo-commit").is_some_and(|found| found != commit) {
            return Err(self.invalid(&what, "belongs to another commit than the one that was requested"));
        }
        let etag = header("x-linked-etag").or_else(|| header(ETAG.as_str()));
        let etag = etag.and_then(|etag| path_segment(etag.trim_start_matches("W/").trim_matches('"')));
        let size = header("x-linked-size").or_else(|| header(CONTENT_LENGTH.as_str()));
        match (etag, size.and_then(|size| size.parse().ok())) {
            (Some(etag), Some(size)) => Ok(RemoteFile { name: name.to_owned(), etag, size }),
            (None, _) => Err(self.invalid(&what, "has no valid ETag")),
            (_, None) => Err(self.invalid(&what, "has no valid size")),
        }
    }

    /// Requests a file, from the byte at `offset` on.
    pub(super) async fn get(&self, commit: &str, name: &str, offset: u64) -> Result<Response, Error> {
        let range = (offset > 0).then(|| HeaderValue::from_str(&format!("bytes={offset}-")).ok()).flatten();
        self.send(Method::GET, self.file_url(commit, name)?, range, &format!("the file `{name}`")).await
    }

    /// Sends a request and follows redirects. The servers of large files are other ones, which do not receive the token.
    async fn send(
        &self,
        method: Method,
        mut url: Url,
        range: Option<HeaderValue>,
        what: &str,
    ) -> Result<Response, Error> {
        for _ in 0..=MAX_REDIRECTS {
            let is_endpoint = url.origin() == self.endpoint.origin();
            let mut request = Request::new(method.clone(), url.clone());
            let headers = request.headers_mut();
            headers.insert(USER_AGENT, AGENT);
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(range) = &range {
                headers.insert(RANGE, range.clone());
            }
            if let Some(token) = self.token.as_ref().filter(|_| is_endpoint) {
                headers.insert(AUTHORIZATION, token.clone());
            }
            let response = tokio::time::timeout(TIMEOUT, self.client.execute(request, Billing::Free)).await;
            let response = response.map_err(|_| self.timeout(what))?.map_err(|error| self.disconnected(what, error))?;
            let status = response.status();
            if !status.is_redirection() {
                let is_ok = status.is_success();
                return if is_ok { Ok(response) } else { Err(self.refused(what, status, response.headers())) };
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| self.invalid(what, "is redirected to a malformed URL"))?;
            // The endpoint itself describes a file that is on another server.
            if method == Method::HEAD && next.origin() != url.origin() {
                return Ok(response);
            }
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(self.invalid(what, "is redirected to a server without TLS"));
            }
            url = next;
        }
        Err(self.invalid(what, "is redirected too often"))
    }

    fn file_url(&self, commit: &str, name: &str) -> Result<Url, Error> {
        let name: Vec<_> = name.split('/').map(|part| utf8_percent_encode(part, UNRESERVED).to_string()).collect();
        self.url(&format!("{}/resolve/{commit}/{}", self.repository, name.join("/")))
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.endpoint.join(path).map_err(|_| self.invalid(path, "is not a valid path of a URL"))
    }

    /// Explains a status that is not a success. The body is left out, because it may quote the token.
    fn refused(&self, what: &str, status: StatusCode, headers: &HeaderMap) -> Error {
        let page = self.page();
        let code = headers.get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let (kind, reason) = match (status.as_u16(), code) {
            (404, "EntryNotFound") => (ErrorKind::NotFound, "it does not exist".to_owned()),
            (404, _) => {
                let reason = "it does not exist, or is private; check the name and the revision, and set a token that may \
                              read it (`.token(..)` or `HF_TOKEN`)";
                (ErrorKind::NotFound, reason.to_owned())
            }
            (401 | 403, _) => {
                let token = match &self.token {
                    Some(_) => "the token has no access",
                    None => "no token is set",
                };
                let reason = format!(
                    "{token}; accept the model's licence at {page}, create a token with read access at {}settings/tokens, \
                     and set it with `.token(..)`, `HF_TOKEN` or `hf auth login`. A repository that does not exist is \
                     reported in the same way",
                    self.endpoint
                );
                (ErrorKind::Authentication, reason)
            }
            (408 | 504, _) => (ErrorKind::Timeout, "the server timed out; try again later".to_owned()),
            (429, _) => (ErrorKind::RateLimited, "too many requests; set a token, or try again later".to_owned()),
            (500.., _) => (ErrorKind::Upstream, "the server failed; try again later".to_owned()),
            _ => (ErrorKind::InvalidResponse, "the response is unexpected; check the endpoint".to_owned()),
        };
        self.error(kind, what, &reason).with_status(status.as_u16())
    }

    /// Explains a failed connection.
    pub(super) fn disconnected(&self, what: &str, error: reqwest::Error) -> Error {
        // A URL can contain a signature.
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let reason = format!("the connection failed ({cause}); check the network and the endpoint `{}`", self.origin());
        self.error(ErrorKind::Connection, what, &reason).with_source(error)
    }

    pub(super) fn timeout(&self, what: &str) -> Error {
        let reason = format!("`{}` sent nothing for too long; try again later", self.origin());
        self.error(ErrorKind::Timeout, what, &reason)
    }

    /// Explains a response that violates the protocol.
    pub(super) fn invalid(&self, what: &str, reason: &str) -> Error {
        let message = format!("`{}`: {what} {reason}", self.repository);
        Error::new(
            ErrorKind::InvalidResponse,
            format!("{message}; try again, or check the endpoint `{}`", self.origin()),
        )
    }

    pub(super) fn error(&self, kind: ErrorKind, what: &str, reason: &str) -> Error {
        Error::new(kind, format!("cannot download {what} of `{}`: {reason}", self.repository))
    }

    fn page(&self) -> String {
        format!("{}{}", self.endpoint, self.repository)
    }

    fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

/// Returns a name that is safe as a part of a path.
fn path_segment(name: &str) -> Option<String> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(is_safe)).then(|| name.to_owned())
}
