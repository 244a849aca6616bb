//! Alternative backends after a failure.

use std::sync::Arc;

use super::failed_attempts::FailedAttempts;
use crate::backend::*;
use crate::error::{Error, ErrorKind};

/// Sends a request to the next backend after a failure.
///
/// By default the next backend is used after failures of the kinds `Connection`, `Timeout`, `RateLimited`, `Upstream`,
/// `Unsupported` and `InsufficientBalance`, and only if the failed request certainly was not
/// [billed](Error::maybe_billed), so that no request is paid for twice. The warnings of the result name the backends that
/// failed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Fallback {
    backends: Vec<Arc<dyn Backend>>,
    kinds: Vec<ErrorKind>,
    even_if_billed: bool,
}

impl Fallback {
    /// Returns a fallback that uses `first` and has no other backend yet.
    pub fn new(first: impl Backend + 'static) -> Self {
        Self {
            backends: vec![Arc::new(first)],
            kinds: vec![
                ErrorKind::Connection,
                ErrorKind::Timeout,
                ErrorKind::RateLimited,
                ErrorKind::Upstream,
                ErrorKind::Unsupported,
                ErrorKind::InsufficientBalance,
            ],
            even_if_billed: false,
        }
    }

    /// Adds a backend that is used after all earlier ones have failed.
    pub fn then(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.push(Arc::new(backend));
        self
    }

    /// Sets the kinds of failures after which the next backend is used, instead of the default ones.
    pub fn on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Uses the next backend even if the failed request may have been billed, in full or, as after the gateway's error
    /// `ALL_PROVIDERS_EXHAUSTED`, in part.
    pub fn even_if_billed(mut self) -> Self {
        self.even_if_billed = true;
        self
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let mut warnings = Vec::new();
        let mut failed = FailedAttempts::default();
        let mut last = no_backend();
        for backend in &self.backends {
            match backend.send(request.clone(), context.clone()).await {
                Ok(mut output) => {
                    output.metadata.warnings.append(&mut warnings);
                    return Ok(failed.add_to_output(output));
                }
                Err(error) => {
                    failed.add(&error);
                    warnings.push(format!("the backend `{}` failed: {error}", backend.name()));
                    last = error;
                }
            }
            if !self.kinds.contains(&last.kind()) || (last.maybe_billed() && !self.even_if_billed) {
                break;
            }
        }
        Err(failed.add_to_error(last))
    }

    async fn highest_estimate(&self, request: Request, context: RequestContext) -> Result<Estimate, Error> {
        let mut highest: Option<Estimate> = None;
        let mut last_rejection = no_backend();
        for backend in &self.backends {
            let name = backend.name();
            if !backend.capabilities().estimate {
                let message = format!("the backend `{name}`, which may run the request, cannot estimate its cost");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            match (&highest, backend.estimate(request.clone(), context.clone()).await) {
                // This backend would also reject the request itself.
                (_, Err(error)) if error.kind() == ErrorKind::Unsupported => last_rejection = error,
                (_, Err(error)) => return Err(error.context(format!("the estimate of the backend `{name}` failed"))),
                (Some(_), Ok(other)) if other.total.micros == 0 => {}
                // Nothing costs the same in every currency.
                (Some(Estimate { total, .. }), Ok(other))
                    if total.micros != 0 && total.currency != other.total.currency =>
                {
                    let (one, other) = (&total.currency, other.total.currency);
                    let message = format!("the estimates of the backends are in {one} and {other}; use one currency");
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                (Some(Estimate { total, .. }), Ok(other)) if total.micros >= other.total.micros => {}
                (_, Ok(estimate)) => highest = Some(estimate),
            }
        }
        highest.ok_or(last_rejection)
    }

    async fn fetch_from_any(&self, url: &str) -> Result<ByteStream, Error> {
        let mut last = Error::new(ErrorKind::Unsupported, "no backend of this fallback can download URLs");
        for backend in self.backends.iter().filter(|backend| backend.capabilities().urls) {
            match backend.fetch(url).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn no_backend() -> Error {
    Error::new(ErrorKind::Configuration, "the fallback has no backend")
}

impl Backend for Fallback {
    fn name(&self) -> &str {
        "fallback"
    }

    fn identity(&self) -> String {
        let all: Vec<_> = self.backends.iter().map(|backend| backend.identity()).collect();
        format!("fallback {all:?}")
    }

    /// Returns the union of the backends' capabilities, except that the support of estimates and `free` require it of all backends.
    fn capabilities(&self) -> Capabilities {
        let all = self.backends.iter().map(|backend| backend.capabilities());
        all.reduce(Capabilities::union).unwrap_or_else(Capabilities::none)
    }

    /// Accepts a request that one of the backends accepts, unless the error of an earlier backend ends the request.
    fn check(&self, request: &Request) -> Result<(), Error> {
        let mut last = no_backend();
        for backend in &self.backends {
            last = match backend.check(request) {
                Err(error) if self.kinds.contains(&error.kind()) => error,
                result => return result,
            };
        }
        Err(last)
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }

    /// Returns the highest estimate of the backends that support the request, since any of them may run it.
    ///
    /// Estimates in different currencies cannot be compared and are rejected with [`ErrorKind::Unsupported`], except for an
    /// estimate of 0.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(self.highest_estimate(request, context))
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(self.fetch_from_any(url))
    }
}
