//! Jobs of providers that work asynchronously: submitted once, polled until they end, and cancelled when they are no longer
//! awaited.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use crate::backend::{BoxFuture, Progress, RequestContext};
use crate::error::{Bills, Error, ErrorKind};
use crate::remote::http::tracked_body::TrackedBody;
use crate::remote::http::transport::{self, Billing, Call, Completed, Payload, Time, Transport};
use crate::remote::response::explanation::Explanation;
use crate::remote::response::failure::Failure;
use crate::remote::response::{classify, json, lenient, timeout};
use crate::remote::secrets::Secrets;
use tokio::time::Instant;

/// How often a job is polled by default.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The time before the deadline that is reserved for a last poll and the cancellation; at most a quarter of the time.
const RESERVE: Duration = Duration::from_secs(1);
/// How long a submission continues in the background, to receive the id of the job that must be cancelled.
const BACKGROUND: Duration = Duration::from_secs(60);
/// Less time than this is too short for another poll.
const MIN_TIME: Duration = Duration::from_millis(20);
/// The number of consecutive unexpected responses after which polling stops. A single one may come from a proxy.
const MAX_UNEXPECTED_RESPONSES: u32 = 3;

/// The job API of a provider.
///
/// The URLs are built from the id of a job and never taken from a response, which could send the key elsewhere.
pub(crate) struct JobApi {
    /// The field of the response to a submission that contains the id.
    pub(crate) id: &'static str,
    pub(crate) status: fn(&Transport, &str) -> Url,
    pub(crate) cancel: fn(&Transport, &str) -> (Method, Url),
}

/// A submitted job. Dropping it before it has ended cancels it.
pub(crate) struct Job {
    transport: Arc<Transport>,
    api: &'static JobApi,
    id: String,
    ended: bool,
}

/// The metadata of a submission.
pub(crate) struct Submitted {
    pub(crate) id: String,
    /// The id without secrets, for messages.
    pub(crate) shown_id: String,
    /// How many failed attempts may have been billed.
    pub(crate) lost_bills: u32,
    pub(crate) attempts: u32,
    started: Instant,
}

impl Submitted {
    /// Adds the metadata of the submission to an error of the job, which may have been billed.
    pub(crate) fn complete(&self, error: Error) -> Error {
        self.with_bills(error, self.lost_bills.saturating_add(1))
    }

    /// Adds the metadata of the submission to an error of the job, which was not billed.
    pub(crate) fn complete_unbilled(&self, error: Error) -> Error {
        self.with_bills(error, self.lost_bills)
    }

    fn with_bills(&self, error: Error, attempts: u32) -> Error {
        let bills = Bills { attempts, made_images: attempts > 0 };
        error.with_bills(bills).with_attempts(self.attempts, self.started.elapsed()).with_request_id(&self.shown_id)
    }
}

/// The turns in which the submissions of one call are repeated.
///
/// A service that throttles accepts few submissions at a time. If several were repeated together, most would be rejected
/// again and use up their attempts. So a rejected submission waits for its turn, and keeps it until it has succeeded.
pub(crate) type Turns = Mutex<()>;

/// Submits `input` to `url`. `transport` has the settings of the call, and `context` receives the progress.
pub(crate) async fn submit(
    transport: &Arc<Transport>,
    api: &'static JobApi,
    url: Url,
    input: &impl Serialize,
    time: Time,
    context: &RequestContext,
    turns: &Turns,
) -> Result<(Job, Submitted), Error> {
    let body = transport::serialize(input)?;
    let request = Arc::new(transport.json_request(url));
    // `for_operation` limits the time of the caller.
    let background = Time { deadline: time.deadline.checked_add(BACKGROUND).unwrap_or(time.deadline), ..time };
    let turn = OnceCell::new();
    let attempt = async || {
        let body = TrackedBody::new(body.clone());
        let is_sent = body.is_sent();
        let (transport, request) = (Arc::clone(transport), Arc::clone(&request));
        let first_byte_timeout = transport.first_byte_timeout;
        let future = Box::pin(async move {
            let context = &RequestContext::default();
            let call = Call { request: &request, payload: &Payload::Tracked(body), time: background, context };
            let submitted = transport.attempt(&call, Billing::Paid, &json::paid).await?;
            let id = lenient::text(&submitted, api.id).filter(|id| transport::segment(id).is_ok());
            let id = id.map(str::to_owned).ok_or_else(|| {
                let message =
                    format!("the response to the job's submission has no `{}`, so its result is lost", api.id);
                Failure::unusable_response(message)
            })?;
            Ok(Job { transport, api, id, ended: false })
        });
        let submission = Submission { future: Some(future), is_sent };
        let result = timeout::for_operation(first_byte_timeout, time.deadline, submission).await;
        if result.as_ref().is_err_and(|failure| failure.error.kind() == ErrorKind::RateLimited) {
            // At the deadline there is no other attempt anyway.
            let _ = tokio::time::timeout_at(time.deadline, turn.get_or_init(|| turns.lock())).await;
        }
        result
    };
    let Completed { result: job, lost_bills, attempts } =
        transport.retry(&transport.retry, Billing::Paid, time, context, attempt).await?;
    let shown_id = transport.secrets.redact_key(&job.id);
    let submitted = Submitted { id: job.id.clone(), shown_id, lost_bills, attempts, started: time.started };
    Ok((job, submitted))
}

/// One attempt to submit a job.
///
/// Once the request is sent it creates a job, even if it is not awaited any more, and only the response contains the job's
/// id. So if it is dropped after that, it continues in the background until it has the [`Job`], which it drops: that cancels
/// the job.
struct Submission {
    future: Option<BoxFuture<'static, Result<Job, Failure>>>,
    is_sent: Arc<AtomicBool>,
}

impl Future for Submission {
    type Output = Result<Job, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.future else { return Poll::Pending };
        let result = future.as_mut().poll(context);
        if result.is_ready() {
            self.future = None;
        }
        result
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        if let Some(future) = self.future.take().filter(|_| self.is_sent.load(Ordering::Relaxed)) {
            spawn(async move { drop(tokio::time::timeout(BACKGROUND, future).await) });
        }
    }
}

/// Runs `work` in the background, with the same HTTP client. Does nothing outside an async runtime.
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
    let runtime = Handle::try_current().ok()?;
    #[cfg(feature = "blocking")]
    let work = crate::blocking::carry(work);
    Some(runtime.spawn(work))
}

/// The state of a job.
pub(crate) enum State<T> {
    Active(Progress),
    Done(T),
}

impl Job {
    /// Polls the job until `read` returns a result or an error. Polling is free, so it continues after failures until the
    /// deadline. The job is never submitted again.
    pub(crate) async fn wait<T>(
        mut self,
        interval: Duration,
        deadline: Instant,
        context: &RequestContext,
        read: impl Fn(Value) -> Result<State<T>, Error>,
    ) -> Result<T, Error> {
        let reserve = deadline.saturating_duration_since(Instant::now()).mul_f64(0.25).min(RESERVE);
        let before_deadline = |time| deadline.checked_sub(time).unwrap_or(deadline);
        let (last_poll, last_response) = (before_deadline(reserve), before_deadline(reserve / 2));
        let url = (self.api.status)(&self.transport, &self.id);
        loop {
            let result = match poll(&self.transport, &url, interval, last_response, failed_poll).await.map(&read) {
                Ok(Ok(State::Active(progress))) => {
                    if let Some(report) = &context.progress {
                        report(progress);
                    }
                    None
                }
                Ok(Ok(State::Done(result))) => Some(Ok(result)),
                Ok(Err(error)) => Some(Err(error)),
                // The status is not available, but the job may be active.
                Err(error) if failed_poll(&error) != FailedPoll::Temporary && Instant::now() < last_poll => {
                    self.cancel_before(deadline.min(Instant::now() + RESERVE)).await;
                    Some(Err(error))
                }
                // There was no time for another poll.
                Err(_) => None,
            };
            if let Some(result) = result {
                self.ended = true;
                return result;
            }
            let left = last_poll.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.cancel_before(deadline).await;
                let message = "the deadline expired before the provider finished the job, which was cancelled";
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            tokio::time::sleep(interval.min(left)).await;
        }
    }

    /// Cancels the job and waits for the response until the deadline, because the program may end after this call. If there
    /// is not enough time, the cancellation continues in the background.
    async fn cancel_before(&mut self, deadline: Instant) {
        if let Some(cancellation) = self.cancel() {
            let _ = tokio::time::timeout_at(deadline, cancellation).await;
        }
    }

    fn cancel(&mut self) -> Option<JoinHandle<()>> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let transport = Arc::clone(&self.transport);
        let (method, url) = (self.api.cancel)(&transport, &self.id);
        spawn(async move {
            let request = transport.request(method, url);
            let _ = transport.send_free(&request, &Payload::Empty, None, json::ignore).await;
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What a failed poll says about the job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailedPoll {
    /// Nothing.
    Temporary,
    /// The job may have ended, or a proxy sent the response.
    Unexpected,
    /// The job has ended.
    Final,
}

/// Returns what a failed poll of the status says. A response that is not JSON may be the page of a proxy.
pub(crate) fn failed_poll(error: &Error) -> FailedPoll {
    match error.is_transient() || error.kind() == ErrorKind::InvalidResponse {
        true => FailedPoll::Temporary,
        false => FailedPoll::Unexpected,
    }
}

/// Requests `url` until there is a response, or until the deadline.
pub(crate) async fn poll(
    transport: &Transport,
    url: &Url,
    interval: Duration,
    deadline: Instant,
    failed_poll: impl Fn(&Error) -> FailedPoll,
) -> Result<Value, Error> {
    let request = transport.request(Method::GET, url.clone());
    let mut unexpected = 0;
    loop {
        let (time, context) = (transport.start(Some(deadline)), &RequestContext::default());
        let call = Call { request: &request, payload: &Payload::Empty, time, context };
        let error = match transport.attempt(&call, Billing::Free, &json::free).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure.free().error,
        };
        unexpected = match failed_poll(&error) {
            FailedPoll::Final => return Err(error),
            FailedPoll::Unexpected => unexpected + 1,
            FailedPoll::Temporary => 0,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if unexpected == MAX_UNEXPECTED_RESPONSES || left < MIN_TIME {
            return Err(error);
        }
        let requested = error.retry_after().unwrap_or_default().min(transport.retry.max_wait);
        tokio::time::sleep(interval.max(requested).min(left / 2)).await;
    }
}

/// Returns the error of a job that ended with this status and without a result. `job` contains the explanation.
pub(crate) fn failed(job: &Value, status: &str, secrets: &Secrets) -> Error {
    let explanation = Explanation::of_json(job);
    let message = match explanation.message(secrets) {
        Some(why) => format!("the job ended with the status {status}: {why}"),
        None if explanation.code().is_some() => format!("the job ended with the status {status}"),
        None => format!("the job ended with the status {status}: the provider reported no reason"),
    };
    let error = Error::new(classify::kind(&explanation).unwrap_or(ErrorKind::Upstream), message);
    explanation.add_to(error, explanation.code(), secrets)
}
