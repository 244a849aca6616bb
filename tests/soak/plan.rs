//! What goes wrong with which request, and how it must end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use lumenfall::testing::{Fault, Received};

/// What goes wrong with a request, try by try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Refused,
    Late,
    LimitedTwice,
    LimitedUntil,
    Exhausted,
    Reset,
    ResetInBody,
    Failed,
    Truncated,
    Hang,
    Drip,
    OtherDelivery,
}

const PLANS: [Plan; 12] = [
    Plan::Refused,
    Plan::Late,
    Plan::LimitedTwice,
    Plan::LimitedUntil,
    Plan::Exhausted,
    Plan::Reset,
    Plan::ResetInBody,
    Plan::Failed,
    Plan::Truncated,
    Plan::Hang,
    Plan::Drip,
    Plan::OtherDelivery,
];

impl Plan {
    /// Three of twenty requests have one, so that good and bad requests run together from the first to the last.
    pub(crate) fn of(number: usize) -> Option<Self> {
        let place = [3, 10, 17].iter().position(|place| number % 20 == *place)?;
        Some(PLANS[(number / 20 * 3 + place) % PLANS.len()])
    }

    /// How often the server sees a request, and whether its caller gets an image.
    pub(crate) fn end(plan: Option<Self>) -> (usize, bool) {
        match plan {
            None | Some(Self::Drip | Self::OtherDelivery) => (1, true),
            // The image had come whole within half an answer.
            Some(Self::ResetInBody | Self::Truncated) => (1, true),
            Some(Self::Late | Self::LimitedUntil | Self::Exhausted) => (2, true),
            Some(Self::LimitedTwice) => (3, true),
            Some(Self::Refused) => (4, false),
            // What may have been executed is given up.
            Some(Self::Reset | Self::Failed | Self::Hang) => (1, false),
        }
    }

    /// Whether the server executes the request, by its own account.
    pub(crate) fn is_executed(plan: Option<Self>) -> bool {
        !matches!(plan, Some(Self::Refused | Self::Failed | Self::Hang))
    }

    fn fault(number: usize, tries: usize) -> Option<Fault> {
        let first = tries == 0;
        // Without a fault, they take their time, each another.
        let good = Fault::Delay(Duration::from_millis(number as u64 % 8));
        Some(match Self::of(number) {
            Some(Self::Refused) => Fault::Status(503),
            Some(Self::Late) if first => Fault::Status(503),
            Some(Self::LimitedTwice) if tries < 2 => Fault::RateLimited(Duration::from_millis(5)),
            Some(Self::LimitedUntil) if first => Fault::RateLimitedUntil(SystemTime::now()),
            Some(Self::Exhausted) if first => Fault::Code(502, "ALL_PROVIDERS_EXHAUSTED".into()),
            Some(Self::Reset) => Fault::Reset,
            Some(Self::ResetInBody) => Fault::ResetInBody,
            Some(Self::Failed) => Fault::Status(500),
            Some(Self::Truncated) => Fault::Truncated,
            Some(Self::Hang) => Fault::Hang,
            Some(Self::Drip) => Fault::Drip(Duration::from_millis(2)),
            Some(Self::OtherDelivery) => Fault::OtherDelivery,
            _ => good,
        })
    }
}

/// What goes wrong with a download, try by try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Download {
    Late,
    Reset,
    ResetInBody,
    Hang,
    Broken,
    Gone,
}

const DOWNLOADS: [Download; 6] =
    [Download::Late, Download::Reset, Download::ResetInBody, Download::Hang, Download::Broken, Download::Gone];

impl Download {
    /// Some requests that nothing else goes wrong with have one.
    pub(crate) fn of(number: usize) -> Option<Self> {
        (number % 20 == 7 && !is_inline(number)).then(|| DOWNLOADS[number / 40 % DOWNLOADS.len()])
    }

    /// How often the server sees a download, and whether the image comes whole.
    pub(crate) fn end(download: Option<Self>) -> (usize, bool) {
        match download {
            None => (1, true),
            Some(Self::Late | Self::Reset | Self::ResetInBody | Self::Hang) => (2, true),
            Some(Self::Broken) => (4, false),
            Some(Self::Gone) => (1, false),
        }
    }

    fn fault(number: usize, tries: usize) -> Option<Fault> {
        let first = tries == 0;
        Some(match Self::of(number)? {
            Self::Late if first => Fault::Status(503),
            Self::Reset if first => Fault::Reset,
            Self::ResetInBody if first => Fault::ResetInBody,
            Self::Hang if first => Fault::Hang,
            Self::Broken => Fault::ResetInBody,
            Self::Gone => Fault::Status(403),
            _ => return None,
        })
    }
}

/// Whether the image is asked for within the answer.
pub(crate) fn is_inline(number: usize) -> bool {
    (number / 7).is_multiple_of(2)
}

/// Whether the image is fetched from an address.
pub(crate) fn is_fetched(number: usize) -> bool {
    is_inline(number) == (Plan::of(number) == Some(Plan::OtherDelivery))
}

pub(crate) fn number(user: Option<&str>) -> usize {
    user.unwrap().parse().unwrap()
}

/// How often each request came.
#[derive(Clone, Default)]
pub(crate) struct Tries(Arc<Mutex<HashMap<usize, usize>>>);

impl Tries {
    pub(crate) fn of(&self, number: usize) -> usize {
        self.0.lock().unwrap().get(&number).copied().unwrap_or(0)
    }

    /// A rule for the gateway, of requests.
    pub(crate) fn of_requests(&self) -> impl Fn(&Received) -> Option<Fault> + Send + Sync + use<> {
        self.rule(Plan::fault)
    }

    /// The same, of downloads.
    pub(crate) fn of_downloads(&self) -> impl Fn(&Received) -> Option<Fault> + Send + Sync + use<> {
        self.rule(Download::fault)
    }

    fn rule(
        &self,
        fault: fn(usize, usize) -> Option<Fault>,
    ) -> impl Fn(&Received) -> Option<Fault> + Send + Sync + use<> {
        let Self(tries) = self.clone();
        move |request| {
            let number = number(request.fields["user"].as_str());
            let mut tries = tries.lock().unwrap();
            let tries = tries.entry(number).or_insert(0);
            *tries += 1;
            fault(number, *tries - 1)
        }
    }
}
