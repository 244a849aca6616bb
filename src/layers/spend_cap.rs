//! No more money than this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{inner_does_the_rest, run_both_modes};
use crate::backend::{Backend, Cost, Metadata, Output, Request, RequestContext};
use crate::error::{Error, ErrorKind};

/// Refuses requests whose expected cost would exceed a cap, before they are sent. Clones share the cap.
///
/// The expected cost is set aside while a request runs, so that requests at the same time cannot exceed
/// the cap together. Afterwards the real cost counts: what the answer says, or else what was expected, and the expected
/// cost once more for each try before that may have been billed. A request that failed counts only if it may have been
/// billed. One whose future was dropped counts once: what tries before the last may have cost is not known then.
///
/// A question for the price that may itself have been billed, since the service took it for a request, uses up the cap.
///
/// The refusal is an [`ErrorKind::InsufficientBalance`] with the code `SPEND_CAP`.
#[derive(Clone, Debug)]
#[must_use]
pub struct SpendCap<B> {
    inner: B,
    cap: Cost,
    per_image: Option<f64>,
    account: Arc<Mutex<Account>>,
}

#[derive(Debug, Default)]
struct Account {
    spent: f64,
    set_aside: f64,
}

impl<B: Backend> SpendCap<B> {
    /// At most `amount` of `currency` (three letters) through `inner`.
    ///
    /// Before each request the backend is asked what it would cost, unless
    /// [`per_image`](Self::per_image) says it.
    pub fn new(inner: B, amount: f64, currency: impl Into<String>) -> Self {
        let cap = Cost { amount, currency: currency.into().to_ascii_uppercase() };
        Self { inner, cap, per_image: None, account: Arc::default() }
    }

    /// Expects this cost for each image instead of asking the backend.
    pub fn per_image(mut self, amount: f64) -> Self {
        self.per_image = Some(amount);
        self
    }

    /// What has been spent, or may have been.
    pub fn spent(&self) -> Cost {
        Cost { amount: self.account().spent, currency: self.cap.currency.clone() }
    }

    /// What can still be spent: the cap without what was spent and what is set aside.
    pub fn remaining(&self) -> Cost {
        let account = self.account();
        let amount = (self.cap.amount - account.spent - account.set_aside).max(0.0);
        Cost { amount, currency: self.cap.currency.clone() }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn expected(&self, request: &Request, context: &RequestContext) -> Result<f64, Error> {
        if let Some(amount) = self.per_image {
            return Ok(amount * f64::from(request.options().n.unwrap_or(1)));
        }
        let estimate = self.inner.estimate(request.clone(), context.clone()).await.map_err(|error| {
            if error.maybe_billed() {
                // It may have cost anything. Asking again would, too.
                let mut account = self.account();
                account.spent = account.spent.max(self.cap.amount);
            }
            error.context("the cost cannot be told beforehand; `.per_image(..)` sets it")
        })?;
        if estimate.total.currency != self.cap.currency {
            let message = format!("the cost is in {}, the cap in {}", estimate.total.currency, self.cap.currency);
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(estimate.total.amount)
    }

    /// Sets the expected cost aside, or refuses.
    fn set_aside(&self, expected: f64) -> Result<SetAside<'_>, Error> {
        let mut account = self.account();
        let committed = account.spent + account.set_aside;
        // A tenth of a micro: sums of decimal fractions are off by less.
        let fits = committed + expected <= self.cap.amount + 1e-7;
        if !(fits && expected >= 0.0) {
            let Cost { amount, currency } = &self.cap;
            let message = format!(
                "the request would cost about {expected:.4} {currency}, and {committed:.4} of the cap of {amount:.4} are \
                 spent or set aside; it was not sent"
            );
            return Err(Error::new(ErrorKind::InsufficientBalance, message).with_code("SPEND_CAP"));
        }
        account.set_aside += expected;
        Ok(SetAside { account: &self.account, expected, cost: expected })
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let expected = self.expected(&request, &context).await?;
        let mut reservation = self.set_aside(expected)?;
        let result = request.send(&self.inner, context).await;
        reservation.cost = match &result {
            Ok(output) => {
                let Metadata { cost, lost_bills, .. } = &*output.metadata;
                let real = cost.as_ref().filter(|cost| cost.currency == self.cap.currency || cost.amount == 0.0);
                real.map_or(expected, |cost| cost.amount.max(0.0)) + f64::from(*lost_bills) * expected
            }
            Err(error) => f64::from(error.maybe_billed_tries()) * expected,
        };
        result
    }
}

/// Money for a request that runs. When it is dropped, `cost` counts as spent: the whole expectation,
/// unless the outcome said otherwise before.
struct SetAside<'a> {
    account: &'a Mutex<Account>,
    expected: f64,
    cost: f64,
}

impl Drop for SetAside<'_> {
    fn drop(&mut self) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.set_aside -= self.expected;
        account.spent += self.cost;
    }
}

impl<B: Backend> Backend for SpendCap<B> {
    run_both_modes!();
    inner_does_the_rest!();
}
