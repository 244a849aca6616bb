//! Work that a provider does in its own time: submitted once, asked about until it has ended, cancelled when
//! nobody waits for it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, Url};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;

use super::transport::{Payload, Transport, segment};
use super::{fields, json};
use crate::backend::{Cost, Options, Progress, RequestContext};
use crate::error::{Error, ErrorKind};
// The one model that the direct backends run.
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;

/// How much of the time is kept for a last question and for having the job cancelled; no more than a quarter of it.
const CANCELLING: Duration = Duration::from_secs(1);
/// Too little time to ask in.
const MOMENT: Duration = Duration::from_millis(20);
/// So many failures in a row that do not pass are believed.
const STRANGE: u32 = 3;

/// How often a job is asked about.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// A job that was submitted. Dropping it before its end cancels it.
pub(super) struct Job {
    pub(super) transport: Arc<Transport>,
    /// Made here from the job's id, never taken from an answer: an address there could lead the key elsewhere.
    pub(super) status: Url,
    pub(super) cancel: (Method, Url),
    pub(super) ended: bool,
}

/// What a job's status says.
pub(super) enum Step<T> {
    Going(Progress),
    Done(T),
}

impl Job {
    /// Asks until `read` finds the end. Asking is free, so it goes on through failures until the deadline;
    /// the job is never submitted again.
    pub(super) async fn wait<T>(
        mut self,
        interval: Duration,
        deadline: Instant,
        context: &RequestContext,
        read: impl Fn(Value) -> Result<Step<T>, Error>,
    ) -> Result<T, Error> {
        let room = deadline.saturating_duration_since(Instant::now()).mul_f64(0.25).min(CANCELLING);
        let before = |room| deadline.checked_sub(room).unwrap_or(deadline);
        // When the last question is asked, and when it must have been answered.
        let (last, answered) = (before(room), before(room / 2));
        loop {
            match ask(&self.transport, &self.status, interval, answered, passing).await.map(&read) {
                Ok(Ok(Step::Going(progress))) => {
                    if let Some(tell) = &context.progress {
                        tell(progress);
                    }
                }
                Ok(Ok(Step::Done(result))) => {
                    self.ended = true;
                    return Ok(result);
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                // It is believed, but the job may be there all the same.
                Err(error) if !passing(&error) && Instant::now() < last => {
                    self.cancel_before(deadline.min(Instant::now() + CANCELLING)).await;
                    return Err(error);
                }
                // It asked until there was no time left.
                Err(_) => {}
            }
            let left = last.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.cancel_before(deadline).await;
                let message = "the time ran out while the provider was at work; it was told to cancel the job";
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            tokio::time::sleep(interval.min(left)).await;
        }
    }
}

/// Asks until there is an answer, through failures that pass, until the deadline. One that does not pass may still be a page
/// of somebody between, so it counts only where it comes again and again.
pub(super) async fn ask(
    transport: &Transport,
    url: &Url,
    interval: Duration,
    deadline: Instant,
    passes: impl Fn(&Error) -> bool,
) -> Result<Value, Error> {
    let request = transport.request(Method::GET, url.clone());
    let mut strange = 0;
    loop {
        let answer = transport.ask(&request, &Payload::Nothing, Some(deadline), json::free::<Value>);
        let error = match answer.await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        strange = if passes(&error) { 0 } else { strange + 1 };
        let left = deadline.saturating_duration_since(Instant::now());
        if strange == STRANGE || left < MOMENT {
            return Err(error);
        }
        tokio::time::sleep(interval.min(left / 2)).await;
    }
}

impl Job {
    /// Has the provider stop. It is waited for until the deadline, since a program may end with this call; what then
    /// is not done goes on beside it.
    async fn cancel_before(&mut self, deadline: Instant) {
        if let Some(cancelling) = self.cancel() {
            let _ = tokio::time::timeout_at(deadline.into(), cancelling).await;
        }
    }

    fn cancel(&mut self) -> Option<JoinHandle<()>> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        // Outside a runtime there is nobody to send it.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (transport, (method, url)) = (Arc::clone(&self.transport), self.cancel.clone());
        Some(runtime.spawn(async move {
            let request = transport.request(method, url);
            let _ = transport.ask(&request, &Payload::Nothing, None, json::ignore).await;
        }))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Whether a failure to ask says nothing about the job.
pub(super) fn passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Connection
            | ErrorKind::Timeout
            | ErrorKind::RateLimited
            | ErrorKind::Upstream
            // A page of somebody between, such as a proxy.
            | ErrorKind::InvalidResponse
    )
}

/// The job's id in the answer to its submission.
pub(super) fn id(submitted: &Value, name: &str) -> Result<String, Error> {
    let id = submitted.get(name).and_then(Value::as_str).filter(|id| segment(id).is_ok());
    id.map(str::to_owned).ok_or_else(|| {
        let message = format!("the provider took the job but gave no `{name}`, so its result cannot be found");
        Error::new(ErrorKind::InvalidResponse, message).with_maybe_billed(true)
    })
}

/// That a provider cannot honour `parameter`, and what to do.
pub(super) fn unsupported(provider: &str, parameter: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{provider} does not take `{parameter}`; {remedy}"))
        .with_parameter(parameter)
}

/// Refuses each of `given` that is there.
pub(super) fn refuse(provider: &str, given: &[(&str, bool)]) -> Result<(), Error> {
    match given.iter().find(|(_, given)| *given) {
        Some((parameter, _)) => Err(unsupported(provider, parameter, "leave it out, or use the gateway")),
        None => Ok(()),
    }
}

/// Refuses a model or a pinned provider other than this one.
pub(super) fn check_model(provider: &str, model: &str, options: &Options) -> Result<(), Error> {
    if model != SCHEMA.id {
        return Err(unsupported(provider, "model", &format!("this backend runs {} only", SCHEMA.id)));
    }
    match &options.provider {
        Some(pinned) if pinned != provider => Err(unsupported(provider, "provider", "pin the provider at the gateway")),
        _ => Ok(()),
    }
}

/// What `images` of so many megapixels cost at `provider`, by the published price.
pub(super) fn price(provider: &str, images: Option<u32>, megapixels: f64) -> Result<Cost, Error> {
    let price = SCHEMA.provider(provider).and_then(|provider| provider.price).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("no price of {provider} is known; look at its own pages"))
    })?;
    Ok(price.of(images.unwrap_or(1), megapixels))
}

/// Adds the extra parameters, but for those that have a function of their own under the provider's `own` names: what is
/// made, and what it costs, is told by the functions alone.
pub(super) fn add_extra(input: &mut Map<String, Value>, extra: Map<String, Value>, own: &[&str]) -> Result<(), Error> {
    for (name, value) in extra {
        fields::check_extra(&name, own)?;
        input.insert(name, value);
    }
    Ok(())
}
