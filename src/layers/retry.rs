//! Another try where one fails.

use std::time::Instant;

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Output, Request, RequestContext};
use crate::error::{Bills, Error, ErrorKind};
use crate::retry::RetryPolicy;

/// Sends a request again where the backend failed and surely [made nothing](Error::made_nothing), as the policy says.
///
/// A failure passes if its kind is `Connection`, `Timeout`, `RateLimited` or `Upstream`; every other would only
/// come again. [`RetryPolicy::may_bill_twice`] also sends again what may have been billed.
///
/// All tries and waits end before the request's own deadline ([`RequestContext::deadline`], the `.timeout(..)` of a typed request). Without one each
/// try has the whole time that the backend itself allows.
///
/// The remote backends of this crate try again themselves, by what they know of the connection: set their own
/// policy with [`ClientBuilder::retry`](crate::remote::ClientBuilder::retry), and put this layer around your own
/// backends, or around a whole [`Fallback`](super::Fallback).
#[derive(Clone, Debug)]
#[must_use]
pub struct Retry<B> {
    inner: B,
    policy: RetryPolicy,
}

impl<B: Backend> Retry<B> {
    /// Tries `inner` again as `policy` says.
    pub fn new(inner: B, policy: RetryPolicy) -> Self {
        Self { inner, policy }
    }

    fn passes(&self, error: &Error) -> bool {
        let kinds = [ErrorKind::Connection, ErrorKind::Timeout, ErrorKind::RateLimited, ErrorKind::Upstream];
        kinds.contains(&error.kind()) && (self.policy.may_bill_twice || error.made_nothing())
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let started = Instant::now();
        let (mut attempts, mut tries, mut bills, mut unfetched) = (0, 0, Bills::default(), Vec::new());
        loop {
            attempts += 1;
            let error = match request.clone().send(&self.inner, context.clone()).await {
                Ok(mut output) => {
                    output.metadata.lost_bills += bills.tries;
                    output.add_unfetched(unfetched);
                    return Ok(output);
                }
                Err(error) => error,
            };
            bills.add(error.bills());
            unfetched.extend_from_slice(error.addresses());
            // What was never sent counts as no try.
            tries += error.attempts();
            let wait = self.policy.next_wait(attempts, &error, context.deadline);
            match wait.filter(|_| self.passes(&error)) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    let error = error.with_bills(bills).replacing_addresses(unfetched);
                    return Err(error.with_attempts(tries.max(attempts), started.elapsed()));
                }
            }
        }
    }
}

impl<B: Backend> Backend for Retry<B> {
    run_both_modes!();
    inner_does_the_rest!();
}
