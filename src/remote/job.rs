//! Work that a provider does in its own time: submitted once, asked about until it has ended, cancelled when
//! nobody waits for it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::json;
use super::submission::{SEEING_THROUGH, Submission, beside};
use super::transport::{Billing, Call, Paid, Payload, Time, Transport, segment};
use super::wait;
use crate::backend::{Progress, RequestContext};
use crate::error::{Bills, Error, ErrorKind};

/// How much of the time is kept for a last question and for having the job cancelled; no more than a quarter of it.
const CANCELLING: Duration = Duration::from_secs(1);
/// Too little time to ask in.
const MOMENT: Duration = Duration::from_millis(20);
/// So many failures in a row that do not pass are believed.
const STRANGE: u32 = 3;

/// How often a job is asked about.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Where a provider's jobs are. The addresses are made here from a job's id, never taken from an answer: one there could lead
/// the key elsewhere.
pub(super) struct Places {
    /// The field of the answer to a submission that has the job's id.
    pub(super) id: &'static str,
    pub(super) status: fn(&Transport, &str) -> Url,
    pub(super) cancel: fn(&Transport, &str) -> (Method, Url),
}

/// A job that was submitted. Dropping it before its end cancels it.
pub(super) struct Job {
    transport: Arc<Transport>,
    places: &'static Places,
    id: String,
    ended: bool,
}

/// What is known of a job that was submitted.
pub(super) struct Submitted {
    pub(super) id: String,
    /// The same, to be told.
    pub(super) name: String,
    /// How many tries before may have been billed.
    pub(super) lost_bills: u32,
    /// How many tries it took.
    pub(super) attempts: u32,
    started: Instant,
}

impl Submitted {
    /// An error after the submission. What it tells is the submission, not the questions after it.
    pub(super) fn told(&self, error: Error) -> Error {
        let bills = Bills { tries: self.lost_bills.saturating_add(1), made: true };
        error.with_bills(bills).with_attempts(self.attempts, self.started.elapsed()).with_request_id(&self.name)
    }
}

/// Submits `input` at `address`.
pub(super) async fn submit(
    transport: &Arc<Transport>,
    places: &'static Places,
    address: Url,
    input: &impl Serialize,
    time: Time,
) -> Result<(Job, Submitted), Error> {
    let body = json::write(input)?;
    let request = Arc::new(transport.json_request(address));
    // How long it is waited for here is bounded outside of it.
    let longer = Time { deadline: time.deadline.checked_add(SEEING_THROUGH).unwrap_or(time.deadline), ..time };
    let attempt = || {
        let submission = Submission::new(body.clone(), |body| {
            let (transport, request) = (Arc::clone(transport), Arc::clone(&request));
            async move {
                let call = Call { request: &request, payload: &Payload::Watched(body), time: longer };
                let submitted = transport.attempt(&call, Billing::Paid, &json::paid::<Value>).await?;
                let id = id(&submitted, places.id)?;
                Ok(Job { transport, places, id, ended: false })
            }
        });
        wait::for_whole(transport.first_byte, time.deadline, submission)
    };
    let Paid { result: job, lost_bills, attempts } =
        transport.repeat(&transport.retry, Billing::Paid, time, attempt).await?;
    let name = transport.secrets.blot_key(&job.id);
    let submitted = Submitted { id: job.id.clone(), name, lost_bills, attempts, started: time.started };
    Ok((job, submitted))
}

/// The job's id in the answer to its submission.
fn id(submitted: &Value, name: &str) -> Result<String, Failure> {
    let id = submitted.get(name).and_then(Value::as_str).filter(|id| segment(id).is_ok());
    id.map(str::to_owned).ok_or_else(|| {
        Failure::useless_answer(format!(
            "the provider took the job but gave no `{name}`, so its result cannot be found"
        ))
    })
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
        let status = (self.places.status)(&self.transport, &self.id);
        loop {
            match ask(&self.transport, &status, interval, answered, passing).await.map(&read) {
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
        let transport = Arc::clone(&self.transport);
        let (method, url) = (self.places.cancel)(&transport, &self.id);
        beside(async move {
            let request = transport.request(method, url);
            let _ = transport.ask(&request, &Payload::Nothing, None, json::ignore).await;
        })
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
