//! Another backend where one fails.

use std::sync::Arc;

use super::run_both_modes;
use crate::backend::{Backend, BoxFuture, ByteStream, Capabilities, Estimate, Output, Request, RequestContext};
use crate::error::{Bills, Error, ErrorKind};

/// Tries backends in order, until one succeeds.
///
/// The next one is tried after a failure of a kind that another backend may not have, and only if the
/// failed one cannot have [billed](Error::maybe_billed) the request, not even a part of it: nobody pays two backends unless
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

    /// Falls back even where the failed backend may have billed the request, or, as after the gateway's
    /// `ALL_PROVIDERS_EXHAUSTED`, a part of it.
    pub fn even_if_billed(mut self) -> Self {
        self.even_if_billed = true;
        self
    }

    fn falls_back(&self, error: &Error) -> bool {
        self.kinds.contains(&error.kind()) && (self.even_if_billed || !error.maybe_billed())
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let mut warnings = Vec::new();
        let (mut bills, mut unfetched) = (Bills::default(), Vec::new());
        let mut last = Error::new(ErrorKind::Configuration, "there is no backend to try");
        for backend in &self.backends {
            match request.clone().send(backend, context.clone()).await {
                Ok(mut output) => {
                    output.metadata.warnings.append(&mut warnings);
                    output.metadata.lost_bills += bills.tries;
                    output.add_unfetched(unfetched);
                    return Ok(output);
                }
                Err(error) => {
                    bills.add(error.bills());
                    unfetched.extend_from_slice(error.addresses());
                    let stop = !self.falls_back(&error);
                    warnings.push(format!("the backend `{}` failed: {error}", backend.name()));
                    last = error;
                    if stop {
                        break;
                    }
                }
            }
        }
        Err(last.with_bills(bills).replacing_addresses(unfetched))
    }

    async fn estimate_dearest(&self, request: Request, context: RequestContext) -> Result<Estimate, Error> {
        let mut dearest: Option<Estimate> = None;
        let mut refusal = None;
        for backend in &self.backends {
            let name = backend.name();
            if !backend.capabilities().estimate {
                let message =
                    format!("the backend `{name}` cannot tell what it would cost, and may be the one that runs");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            let estimate = match backend.estimate(request.clone(), context.clone()).await {
                Ok(estimate) => estimate,
                // It would refuse the request itself, too.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    refusal = Some(error);
                    continue;
                }
                Err(error) => return Err(error.context(format!("asking the backend `{name}`"))),
            };
            match &dearest {
                Some(known) if known.total.currency != estimate.total.currency => {
                    let message = format!(
                        "the backends count in {} and in {}, which do not compare",
                        known.total.currency, estimate.total.currency
                    );
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                Some(known) if known.total.amount >= estimate.total.amount => {}
                _ => dearest = Some(estimate),
            }
        }
        dearest.ok_or_else(|| {
            refusal.unwrap_or_else(|| Error::new(ErrorKind::Configuration, "there is no backend to ask"))
        })
    }

    async fn fetch_by_any(&self, address: &str) -> Result<ByteStream, Error> {
        let mut last = Error::new(ErrorKind::Unsupported, "none of the backends has addresses to fetch");
        for backend in self.backends.iter().filter(|backend| backend.capabilities().addresses) {
            match backend.fetch(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Backend for Fallback {
    fn name(&self) -> &str {
        "fallback"
    }

    fn identity(&self) -> String {
        let all: Vec<_> = self.backends.iter().map(|backend| backend.identity()).collect();
        format!("fallback {all:?}")
    }

    /// What any of the backends can do: one that cannot refuses, and the next is tried. Only the price must be told by
    /// all of them.
    fn capabilities(&self) -> Capabilities {
        let none = Capabilities { estimate: true, ..Capabilities::none() };
        self.backends.iter().fold(none, |mut all, backend| {
            let Capabilities { generate, edit, mask, estimate, addresses, output_formats } = backend.capabilities();
            all.generate |= generate;
            all.edit |= edit;
            all.mask |= mask;
            all.estimate &= estimate;
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

    /// Of the dearest backend that takes the request, since each may be the one that runs it.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Box::pin(self.estimate_dearest(request, context))
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Box::pin(self.fetch_by_any(address))
    }
}
