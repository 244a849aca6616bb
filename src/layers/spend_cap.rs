//! A limit on spending.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::*;
use crate::error::{Error, ErrorKind};

/// Rejects a request before it is sent if its expected cost would exceed the remaining budget. Clones share the budget.
///
/// The expected cost is the backend's [estimate](Backend::estimate), or the amount set with [`per_image`](Self::per_image).
/// It is reserved while the request runs, so that concurrent requests cannot exceed the cap together. Then the actual cost
/// is recorded:
///
/// - after a success, the cost that the backend reports (or else the expected cost), and the expected cost for each
///   [earlier attempt](Metadata::lost_bills) that may have been billed;
/// - after a failure, the expected cost for each [attempt that may have been billed](Error::maybe_billed_attempts);
/// - after the future was dropped, the expected cost once.
///
/// If an estimate itself may have been billed, because the service treated it as a paid request, the cap counts as spent.
///
/// The error of a rejected request has the kind [`ErrorKind::InsufficientBalance`] and the code `SPEND_CAP`.
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
    reserved: f64,
}

impl<B: Backend> SpendCap<B> {
    /// Wraps `inner` to spend at most `amount`, in units of `currency` (an ISO 4217 code such as `USD`).
    pub fn new(inner: B, amount: f64, currency: impl Into<String>) -> Self {
        let cap = Cost { amount, currency: currency.into().to_ascii_uppercase() };
        Self { inner, cap, per_image: None, account: Arc::default() }
    }

    /// Sets the expected cost of an image. By default the backend is asked for an estimate before each request.
    pub fn per_image(mut self, amount: f64) -> Self {
        self.per_image = Some(amount);
        self
    }

    /// Returns the amount that has been or may have been spent.
    pub fn spent(&self) -> Cost {
        self.cost(self.account().spent)
    }

    /// Returns the amount that can still be spent: the cap minus what was spent and what is reserved.
    pub fn remaining(&self) -> Cost {
        let account = self.account();
        self.cost((self.cap.amount - account.spent - account.reserved).max(0.0))
    }

    fn cost(&self, amount: f64) -> Cost {
        Cost { amount, currency: self.cap.currency.clone() }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn expected_cost(&self, request: &Request, context: &RequestContext) -> Result<f64, Error> {
        if let Some(amount) = self.per_image {
            return Ok(amount * f64::from(request.options().n.unwrap_or(1)));
        }
        let estimate = self.inner.estimate(request.clone(), context.clone()).await.map_err(|error| {
            if error.maybe_billed() {
                // The cost is unknown, and another estimate would be billed, too.
                let mut account = self.account();
                account.spent = account.spent.max(self.cap.amount);
            }
            error.context("cannot estimate the cost; set it with `SpendCap::per_image(..)`")
        })?;
        let Cost { amount, currency } = estimate.total;
        if currency != self.cap.currency {
            let message = format!("the estimate is in {currency}; set the spend cap in {currency}, too");
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(amount)
    }

    fn reserve(&self, expected: f64) -> Result<Reservation<'_>, Error> {
        let mut account = self.account();
        let committed = account.spent + account.reserved;
        // A tolerance for the rounding error of sums of decimal fractions.
        let fits = committed + expected <= self.cap.amount + 1e-7;
        if !(fits && expected >= 0.0) {
            let Cost { amount, currency } = &self.cap;
            let message = format!(
                "the request was not sent: it would cost about {expected:.4} {currency}, and {committed:.4} of the spend \
                 cap of {amount:.4} {currency} are spent or reserved"
            );
            return Err(Error::new(ErrorKind::InsufficientBalance, message).with_code("SPEND_CAP"));
        }
        account.reserved += expected;
        Ok(Reservation { account: &self.account, expected, actual: expected })
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let expected = self.expected_cost(&request, &context).await?;
        let mut reservation = self.reserve(expected)?;
        let result = self.inner.send(request, context).await;
        reservation.actual = match &result {
            Ok(output) => {
                let Metadata { cost, lost_bills, .. } = &*output.metadata;
                let known = cost.as_ref().filter(|cost| cost.currency == self.cap.currency || cost.amount == 0.0);
                known.map_or(expected, |cost| cost.amount.max(0.0)) + f64::from(*lost_bills) * expected
            }
            Err(error) => f64::from(error.maybe_billed_attempts()) * expected,
        };
        result
    }
}

/// The budget of a running request. On drop, `actual` is recorded as spent: the expected cost unless the result is known.
struct Reservation<'a> {
    account: &'a Mutex<Account>,
    expected: f64,
    actual: f64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.reserved -= self.expected;
        account.spent += self.actual;
    }
}

impl<B: Backend> Backend for SpendCap<B> {
    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }
    delegate_rest_to!(self, self.inner);
}
