//! The one error type of the SDK.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What went wrong, as a closed question a program can match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client is not set up right: a missing or malformed key, a bad base address.
    Configuration,
    /// The request breaks a rule of the model's schema or of the service.
    InvalidRequest,
    /// The backend cannot honour something that was asked for.
    Unsupported,
    /// The service refused the prompt or the image for its content.
    ContentPolicy,
    /// The key was refused.
    Authentication,
    /// The account has not enough money.
    InsufficientBalance,
    /// The model or the thing asked for does not exist.
    NotFound,
    /// Too many requests; see [`Error::retry_after`].
    RateLimited,
    /// The service could not be reached, or the connection to it broke; [`Error::maybe_billed`] tells
    /// whether the request may have been executed.
    Connection,
    /// Time ran out.
    Timeout,
    /// The service, or a provider behind it, failed.
    Upstream,
    /// The answer could not be understood.
    InvalidResponse,
    /// A local file could not be read or written, or is not what it should be.
    Io,
    /// A local model's files are missing, damaged or of the wrong shape.
    Model,
    /// The local computation failed.
    Compute,
}

/// Everything that can go wrong, in one opaque type.
///
/// Ask [`kind`](Error::kind) to decide, print the error to tell a person. No message contains a
/// secret, a signed address or an image's data.
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
    addresses: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the tries of a request may have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bills {
    /// How many of them may have been billed.
    pub(crate) tries: u32,
    /// Whether one of those may have made images.
    pub(crate) made: bool,
}

impl Bills {
    /// Those of further tries besides.
    pub(crate) fn add(&mut self, further: Self) {
        self.tries = self.tries.saturating_add(further.tries);
        self.made |= further.made;
    }
}

impl Error {
    /// An error of `kind`. `message` says what happened, where, and what to do about it.
    ///
    /// Backends outside this crate make their errors with this and the `with_…` functions.
    // Cold here and wherever one is made: what leads to an error stays out of the way of what does not.
    #[cold]
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
            addresses: Vec::new(),
            source: None,
        }))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The service's own code for the error, such as `CONTENT_POLICY_VIOLATION`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The request parameter that is at fault, where one is.
    pub fn parameter(&self) -> Option<&str> {
        self.0.parameter.as_deref()
    }

    /// The HTTP status of the answer, if one arrived.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The service's name for the request, to quote to its support.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// How long the service asked to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the request may have been executed and billed although no result arrived.
    pub fn maybe_billed(&self) -> bool {
        self.0.bills.tries > 0
    }

    /// How many of the tries may have been billed; more than one only where the caller allowed it, or where the
    /// service said each time that it made nothing.
    pub fn maybe_billed_tries(&self) -> u32 {
        self.0.bills.tries
    }

    /// Whether surely no images were made, so that another try cannot pay twice for one result.
    ///
    /// A request that cannot have been billed made nothing. One that may have been billed can have made nothing, too:
    /// the gateway's `ALL_PROVIDERS_EXHAUSTED` says so, and may still charge a part of the cost.
    pub fn made_nothing(&self) -> bool {
        !self.0.bills.made
    }

    pub(crate) fn bills(&self) -> Bills {
        self.0.bills
    }

    /// How many times the request was tried; 0 where it was never sent.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How long all tries and the waits between them took; `None` where the request was never sent.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.elapsed
    }

    /// Where images lie that were made, and paid for, but could not be fetched. They may come later, for as long as such
    /// addresses work: [`Input::fetch`](crate::Input::fetch) gets them. An address may carry a signature, so it stands in no message.
    pub fn addresses(&self) -> &[String] {
        &self.0.addresses
    }

    /// Changes the kind, for a caller that knows better what the failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Puts what was being done before the message: `what: message`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// Adds the service's own code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Adds the name of the parameter at fault.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>) -> Self {
        self.0.parameter = Some(name.into());
        self
    }

    /// Adds the HTTP status of the answer.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Adds the service's name for the request.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// Adds the wait that the service asked for.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Says whether the request may have been executed, with its images made, and billed.
    #[must_use]
    pub fn with_maybe_billed(self, maybe_billed: bool) -> Self {
        let tries = if maybe_billed { self.0.bills.tries.max(1) } else { 0 };
        self.with_bills(Bills { tries, made: maybe_billed })
    }

    /// Says that no images were made, whatever the request cost; see [`made_nothing`](Self::made_nothing).
    #[must_use]
    pub fn with_nothing_made(mut self) -> Self {
        self.0.bills.made = false;
        self
    }

    #[must_use]
    pub(crate) fn with_bills(mut self, bills: Bills) -> Self {
        self.0.bills = bills;
        self
    }

    /// Adds how often the request was tried, and how long that took.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32, elapsed: Duration) -> Self {
        self.0.attempts = attempts;
        self.0.elapsed = Some(elapsed);
        self
    }

    /// Adds where images lie that could not be fetched.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = String>) -> Self {
        self.0.addresses.extend(addresses);
        self
    }

    /// With all the addresses of several tries, its own among them.
    #[must_use]
    pub(crate) fn replacing_addresses(mut self, addresses: Vec<String>) -> Self {
        self.0.addresses = addresses;
        self
    }

    /// Adds the error underneath. It must not print secrets: addresses are to be stripped before.
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
            write!(f, " (after {} tries)", self.0.attempts)?;
        }
        match self.0.bills.tries {
            0 => Ok(()),
            1 => f.write_str(" (the request may have been billed)"),
            tries => write!(f, " (the request may have been billed {tries} times)"),
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
            .field("maybe_billed_tries", &details.bills.tries)
            .field("made_nothing", &!details.bills.made)
            .field("attempts", &details.attempts)
            .field("elapsed", &details.elapsed)
            .field("addresses", &details.addresses.len())
            .field("source", &details.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
