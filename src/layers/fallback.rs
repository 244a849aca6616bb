//! Another backend where one fails.

use std::sync::Arc;

use super::run_both_modes;
use crate::backend::{Backend, BoxFuture, ByteStream, Capabilities, Estimate, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};

/// Tries backends in order, until one succeeds.
///
/// The next one is tried after a failure of a kind that another backend may not have, and only if the
/// failed one cannot have billed the request: nobody pays twice for one result unless
/// [`even_if_billed`](Self::even_if_billed) allows it. The answer's warnings tell which backends failed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Fallback {
    backends: Vec<Arc<dyn Backend>>,
    kinds: Vec<ErrorKind>,
    even_if_billed: bool,
}

impl Fallback {
    /// `first`, and so far nothing to fall back to.
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

    /// Tries `backend` where all those before have failed.
    pub fn then(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.push(Arc::new(backend));
        self
    }

    /// Falls back on failures of these kinds only. By default: `Connection`, `Timeout`, `RateLimited`,
    /// `Upstream`, `Unsupported` and `InsufficientBalance`.
    pub fn on(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Falls back even where the failed backend may have billed the request.
    pub fn even_if_billed(mut self) -> Self {
        self.even_if_billed = true;
        self
    }

    fn falls_back(&self, error: &Error) -> bool {
        self.kinds.contains(&error.kind()) && (self.even_if_billed || error.made_nothing())
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let mut warnings = Vec::new();
        let mut billed = false;
        let mut last = Error::new(ErrorKind::Configuration, "there is no backend to try");
        for backend in &self.backends {
            match request.clone().send(backend, context.clone()).await {
                Ok(mut output) => {
                    output.metadata.warnings.append(&mut warnings);
                    return Ok(output);
                }
                Err(error) => {
                    billed |= error.maybe_billed();
                    let stop = !self.falls_back(&error);
                    warnings.push(format!("the backend `{}` failed: {error}", backend.name()));
                    last = error;
                    if stop {
                        break;
                    }
                }
            }
        }
        Err(last.with_maybe_billed(billed))
    }

    async fn estimate_first(&self, request: Request, context: RequestContext) -> Result<Estimate, Error> {
        let mut last = Error::new(ErrorKind::Configuration, "there is no backend to ask");
        for backend in &self.backends {
            match backend.estimate(request.clone(), context.clone()).await {
                Err(error) if self.kinds.contains(&error.kind()) => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }
}

impl Backend for Fallback {
    fn name(&self) -> &str {
        "fallback"
    }

    /// What any of the backends can do: one that cannot refuses, and the next is tried.
    fn capabilities(&self) -> Capabilities {
        self.backends.iter().fold(Capabilities::none(), |mut all, backend| {
            let Capabilities { generate, edit, mask, estimate, addresses, output_formats } = backend.capabilities();
            all.generate |= generate;
            all.edit |= edit;
            all.mask |= mask;
            all.estimate |= estimate;
            all.addresses |= addresses;
            for format in output_formats {
                if !all.output_formats.contains(&format) {
                    all.output_formats.push(format);
                }
            }
            all
        })
    }

    run_both_modes!();

    /// Of the first backend that can tell.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(self.estimate_first(request, context))
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        match self.backends.iter().find(|backend| backend.capabilities().addresses) {
            Some(backend) => backend.fetch(address),
            None => Box::pin(async {
                Err(Error::new(ErrorKind::Unsupported, "none of the backends has addresses to fetch"))
            }),
        }
    }
}
