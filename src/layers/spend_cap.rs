//! A limit on spending.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::layer::Layer;
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
/// All amounts must be in the currency of the cap. The layer does not convert currencies, so it rejects every request with
/// [`ErrorKind::Configuration`] if another amount is in a different currency and is not 0.
///
/// The error of a rejected request has the kind [`ErrorKind::InsufficientBalance`] and the code `SPEND_CAP`.
///
/// ```
/// use lumenfall::backend::Cost;
/// use lumenfall::layers::SpendCap;
///
/// # #[cfg(feature = "testing")]
/// # {
/// # let backend = lumenfall::testing::MockBackend::new();
/// let stored = r#"{"micros":1500000,"currency":"USD"}"#; // what an earlier run of the program spent
/// let spent: Cost = serde_json::from_str(stored).unwrap();
/// let capped = SpendCap::new(backend, Cost::new(5.0, "USD")).starting_at(spent);
/// assert_eq!(capped.remaining().to_string(), "3.50 USD");
/// assert_eq!(serde_json::to_string(&capped.spent()).unwrap(), stored);
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SpendCap<B> {
    inner: B,
    cap: Cost,
    per_image: Option<Cost>,
    /// The amount of [`starting_at`](Self::starting_at), whose currency is checked with the first request.
    start: Cost,
    account: Arc<Mutex<Account>>,
}

#[derive(Debug, Default)]
struct Account {
    /// In micro-units.
    spent: i64,
    reserved: i64,
}

impl<B: Backend> SpendCap<B> {
    /// Wraps `inner` to spend at most `cap`.
    pub fn new(inner: B, cap: Cost) -> Self {
        Self { inner, cap, per_image: None, start: Cost::nothing(), account: Arc::default() }
    }

    /// Sets the expected cost of an image. By default the backend is asked for an estimate before each request.
    pub fn per_image(mut self, cost: Cost) -> Self {
        self.per_image = Some(cost);
        self
    }

    /// Sets the amount that has already been spent: for a program that stores [`spent`](Self::spent) and is started again.
    /// Clones share the budget, so call this before the layer is cloned.
    pub fn starting_at(mut self, spent: Cost) -> Self {
        self.account().spent = spent.micros;
        self.start = spent;
        self
    }

    /// Returns the amount that has been or may have been spent.
    pub fn spent(&self) -> Cost {
        self.cost(self.account().spent)
    }

    /// Returns the amount that can still be spent: the cap minus what was spent and what is reserved.
    pub fn remaining(&self) -> Cost {
        let account = self.account();
        self.cost(self.cap.micros.saturating_sub(account.spent).saturating_sub(account.reserved).max(0))
    }

    fn cost(&self, micros: i64) -> Cost {
        Cost::from_micros(micros, self.cap.currency.clone())
    }

    /// Checks that an amount is 0 or in the currency of the cap, and returns it in micro-units. `what` names the amount.
    fn in_currency_of_cap(&self, what: &str, Cost { micros, currency }: &Cost) -> Result<i64, Error> {
        let cap = &self.cap.currency;
        if *micros == 0 || currency == cap {
            return Ok(*micros);
        }
        let message = format!("{what} is in {currency}, but the spend cap is in {cap}; use one currency");
        Err(Error::new(ErrorKind::Configuration, message))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn expected_cost(&self, request: &Request, context: &RequestContext) -> Result<i64, Error> {
        self.in_currency_of_cap("the amount of `SpendCap::starting_at(..)`", &self.start)?;
        if let Some(cost) = &self.per_image {
            let micros = self.in_currency_of_cap("the amount of `SpendCap::per_image(..)`", cost)?;
            return Ok(micros.saturating_mul(request.options().n.unwrap_or(1).into()));
        }
        let estimate = self.inner.estimate(request.clone(), context.clone()).await.map_err(|error| {
            if error.maybe_billed() {
                // The cost is unknown, and another estimate would be billed, too.
                let mut account = self.account();
                account.spent = account.spent.max(self.cap.micros);
            }
            error.context("cannot estimate the cost; set it with `SpendCap::per_image(..)`")
        })?;
        self.in_currency_of_cap("the estimate of the backend", &estimate.total)
    }

    fn reserve(&self, expected: i64) -> Result<Reservation<'_>, Error> {
        let mut account = self.account();
        let committed = account.spent.saturating_add(account.reserved);
        if expected < 0 || committed.saturating_add(expected) > self.cap.micros {
            let (expected, committed, cap) = (self.cost(expected), self.cost(committed), &self.cap);
            let message = format!(
                "the request was not sent: it would cost about {expected}, and {committed} of the spend cap of {cap} are \
                 spent or reserved"
            );
            return Err(Error::new(ErrorKind::InsufficientBalance, message).with_code("SPEND_CAP"));
        }
        account.reserved = account.reserved.saturating_add(expected);
        Ok(Reservation { account: &self.account, expected, actual: expected })
    }

    async fn run(&self, request: Request, context: RequestContext) -> Result<Output, Error> {
        let expected = self.expected_cost(&request, &context).await?;
        let mut reservation = self.reserve(expected)?;
        let result = self.inner.send(request, context).await;
        reservation.actual = match &result {
            Ok(output) => {
                let Metadata { cost, lost_bills, .. } = &*output.metadata;
                let known = cost.as_ref().and_then(|cost| self.in_currency_of_cap("the cost", cost).ok());
                let lost = expected.saturating_mul((*lost_bills).into());
                known.map_or(expected, |micros| micros.max(0)).saturating_add(lost)
            }
            Err(error) => expected.saturating_mul(error.maybe_billed_attempts().into()),
        };
        result
    }
}

/// The budget of a running request. On drop, `actual` is recorded as spent: the expected cost unless the result is known.
struct Reservation<'a> {
    account: &'a Mutex<Account>,
    expected: i64,
    actual: i64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        // The sum of the reservations may have been saturated.
        account.reserved = account.reserved.saturating_sub(self.expected).max(0);
        account.spent = account.spent.saturating_add(self.actual);
    }
}

impl<B: Backend> Layer for SpendCap<B> {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    /// Returns the identity of the inner backend, because this layer does not change images.
    fn layer_identity(&self) -> String {
        self.inner.identity()
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Box::pin(self.run(request, context))
    }
}
