//! The error type of the SDK.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The kind of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client is misconfigured: a missing or malformed API key, or a malformed base URL.
    Configuration,
    /// The request violates a rule of the model's schema or of the service.
    InvalidRequest,
    /// The backend does not support something that the request asks for.
    Unsupported,
    /// The service rejected the prompt or the image because of its content policy.
    ContentPolicy,
    /// The service rejected the API key.
    Authentication,
    /// The account balance is too low.
    InsufficientBalance,
    /// The model or the requested resource does not exist.
    NotFound,
    /// The service received too many requests; see [`Error::retry_after`].
    RateLimited,
    /// The service could not be reached, or the connection was closed; [`Error::maybe_billed`] reports whether the
    /// request may have been executed.
    Connection,
    /// A timeout or the deadline expired.
    Timeout,
    /// The service, or a provider behind it, failed.
    Upstream,
    /// The response could not be parsed.
    InvalidResponse,
    /// A local file could not be read or written, or is not a valid input.
    Io,
    /// A file of a local model is missing, corrupt or of the wrong shape.
    Model,
    /// The local computation failed.
    Compute,
    /// The caller cancelled the request with a [`Cancellation`](crate::Cancellation) handle.
    Cancelled,
}

/// Writes the kind in words, such as `rate limited`.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::InvalidRequest => "invalid request",
            Self::Unsupported => "unsupported",
            Self::ContentPolicy => "content policy",
            Self::Authentication => "authentication",
            Self::InsufficientBalance => "insufficient balance",
            Self::NotFound => "not found",
            Self::RateLimited => "rate limited",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Upstream => "upstream failure",
            Self::InvalidResponse => "invalid response",
            Self::Io => "input or output",
            Self::Model => "model files",
            Self::Compute => "computation",
            Self::Cancelled => "cancelled",
        })
    }
}

/// An error of any operation of this crate.
///
/// Match on [`kind`](Error::kind) to handle an error; print it to explain it to a person. No message contains a secret,
/// a signed URL or image data.
///
/// ```
/// use lumenfall::{ErrorKind, Size};
///
/// let error = Size::pixels(0, 512).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidRequest);
/// assert!(!error.maybe_billed());
/// ```
pub struct Error(Box<Details>);

struct Details {
    kind: ErrorKind,
    message: String,
    code: Option<String>,
    parameter: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    bills: Bills,
    attempts: u32,
    elapsed: Option<Duration>,
    unfetched_urls: Vec<String>,
    /// Whether the service that runs a job sent this error, and not a proxy in front of it.
    is_from_job: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The possible cost of the failed attempts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bills {
    /// How many attempts may have been billed.
    pub(crate) attempts: u32,
    /// Whether one of those attempts may have produced images.
    pub(crate) made_images: bool,
}

impl Bills {
    /// Adds the bills of further attempts.
    pub(crate) fn add(&mut self, other: Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.made_images |= other.made_images;
    }
}

impl Error {
    /// Creates an error. `message` says what happened, where, and what to do about it.
    ///
    /// Custom backends create their errors with this function and the `with_…` methods.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            code: None,
            parameter: None,
            status: None,
            request_id: None,
            retry_after: None,
            bills: Bills::default(),
            attempts: 0,
            elapsed: None,
            unfetched_urls: Vec::new(),
            is_from_job: false,
            source: None,
        }))
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the service's error code, such as `CONTENT_POLICY_VIOLATION`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Returns the name of the invalid request parameter, if the error is about one.
    pub fn parameter(&self) -> Option<&str> {
        self.0.parameter.as_deref()
    }

    /// Returns the HTTP status of the response, if one was received.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// Returns the service's id of the request, for support requests.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// Returns how long the service asked to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns whether the failure is temporary: the same request may succeed later.
    ///
    /// True for [`Connection`](ErrorKind::Connection), [`Timeout`](ErrorKind::Timeout),
    /// [`RateLimited`](ErrorKind::RateLimited) and [`Upstream`](ErrorKind::Upstream).
    pub fn is_transient(&self) -> bool {
        use ErrorKind::{Connection, RateLimited, Timeout, Upstream};

        matches!(self.kind(), Connection | Timeout | RateLimited | Upstream)
    }

    /// Returns whether the request may have been executed and billed although no result was received. If in doubt, this
    /// returns true.
    pub fn maybe_billed(&self) -> bool {
        self.0.bills.attempts > 0
    }

    /// Returns how many attempts may have been billed. It is more than one only if the caller allowed it, or if the service
    /// reported for each of them that it produced no images.
    pub fn maybe_billed_attempts(&self) -> u32 {
        self.0.bills.attempts
    }

    /// Returns whether it is certain that no images were produced, so that a retry cannot pay twice for one result.
    ///
    /// A request that was not billed produced nothing. One that may have been billed can have produced nothing too: the
    /// gateway reports so with `ALL_PROVIDERS_EXHAUSTED`, and may still charge a part of the cost.
    pub fn made_nothing(&self) -> bool {
        !self.0.bills.made_images
    }

    pub(crate) fn bills(&self) -> Bills {
        self.0.bills
    }

    /// Returns the number of attempts; 0 if the request was never sent.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the duration of all attempts and the waits between them; `None` if the request was never sent.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// Returns the URLs of images that were produced and billed, but could not be downloaded.
    ///
    /// [`Input::fetch`](crate::Input::fetch) can download them later, until the URLs expire. A URL can contain a signature,
    /// so no message contains it.
    pub fn unfetched_urls(&self) -> &[String] {
        &self.0.unfetched_urls
    }

    /// Replaces the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Prepends the operation to the message: `operation: message`.
    #[must_use]
    pub fn context(mut self, operation: impl fmt::Display) -> Self {
        self.0.message = format!("{operation}: {}", self.0.message);
        self
    }

    /// Sets the service's error code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Sets the name of the invalid parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>) -> Self {
        self.0.parameter = Some(name.into());
        self
    }

    /// Sets the HTTP status of the response.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Sets the service's id of the request.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// Sets how long the service asked to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Sets whether the request may have been executed, with its images produced and billed.
    #[must_use]
    pub fn with_maybe_billed(self, maybe_billed: bool) -> Self {
        let attempts = if maybe_billed { self.0.bills.attempts.max(1) } else { 0 };
        self.with_bills(Bills { attempts, made_images: maybe_billed })
    }

    /// Records that no images were produced, whatever the request cost; see [`made_nothing`](Self::made_nothing).
    #[must_use]
    pub fn with_nothing_made(mut self) -> Self {
        self.0.bills.made_images = false;
        self
    }

    #[must_use]
    pub(crate) fn with_bills(mut self, bills: Bills) -> Self {
        self.0.bills = bills;
        self
    }

    /// Sets the number of attempts and their total duration.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32, elapsed: Duration) -> Self {
        self.0.attempts = attempts;
        self.0.elapsed = Some(elapsed);
        self
    }

    /// Adds URLs of images that could not be downloaded.
    #[must_use]
    pub fn with_unfetched_urls(mut self, urls: impl IntoIterator<Item = String>) -> Self {
        self.0.unfetched_urls.extend(urls);
        self
    }

    /// Records that the service that runs a job sent this error, and not a proxy in front of it.
    #[must_use]
    pub(crate) fn with_is_from_job(mut self) -> Self {
        self.0.is_from_job = true;
        self
    }

    pub(crate) fn is_from_job(&self) -> bool {
        self.0.is_from_job
    }

    /// Replaces the URLs of images that could not be downloaded by those of several attempts.
    #[must_use]
    pub(crate) fn replacing_unfetched_urls(mut self, urls: Vec<String>) -> Self {
        self.0.unfetched_urls = urls;
        self
    }

    /// Sets the underlying error. Its message must not contain secrets, so URLs must be removed first.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(code) = &self.0.code {
            write!(f, " [{code}]")?;
        }
        if let Some(status) = self.0.status {
            write!(f, " (HTTP {status})")?;
        }
        if let Some(id) = &self.0.request_id {
            write!(f, " (request {id})")?;
        }
        if self.0.attempts > 1 {
            write!(f, " (after {} attempts)", self.0.attempts)?;
        }
        match self.0.bills.attempts {
            0 => Ok(()),
            1 => f.write_str(" (the request may have been billed)"),
            attempts => write!(f, " (the request may have been billed {attempts} times)"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        f.debug_struct("Error")
            .field("kind", &details.kind)
            .field("message", &details.message)
            .field("code", &details.code)
            .field("parameter", &details.parameter)
            .field("status", &details.status)
            .field("request_id", &details.request_id)
            .field("retry_after", &details.retry_after)
            .field("maybe_billed_attempts", &details.bills.attempts)
            .field("made_nothing", &!details.bills.made_images)
            .field("attempts", &details.attempts)
            .field("elapsed", &details.elapsed)
            .field("unfetched_urls", &details.unfetched_urls.len())
            .field("source", &details.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
