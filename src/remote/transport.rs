//! Sending: tries, waits and one deadline around all of them.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use reqwest::{Client, Method, Request, RequestBuilder, Response, Url};
use serde::Serialize;

use super::body::{self, Body};
use super::failure::{Failure, Verdict};
use super::key::Secrets;
use super::multipart::Edit;
use super::submission::Watched;
use super::upload::Upload;
use super::wait::{Part, within};
use super::{clean, headers, json};
use crate::backend::BoxFuture;
use crate::error::{Bills, Error, ErrorKind};
use crate::retry::RetryPolicy;

/// An error's body is read up to here.
const ERROR_BODY: usize = 64 * 1024;

/// How many redirects a download follows.
const REDIRECTS: usize = 5;

/// How the backend speaks HTTP.
pub(super) struct Transport {
    pub(super) http: Http,
    pub(super) base: Url,
    /// Where the gateway's own API is, if this is the gateway.
    pub(super) native: Option<Url>,
    pub(super) secrets: Secrets,
    /// Those of each call to the API, with the key among them.
    pub(super) headers: HeaderMap,
    pub(super) retry: RetryPolicy,
    pub(super) timeout: Duration,
    pub(super) first_byte: Duration,
    pub(super) idle: Duration,
    pub(super) limit: usize,
}

/// Who keeps the connections.
///
/// Neither follows a redirect: a paid request has no reason to be redirected, and neither the key nor the prompt is to follow
/// one to another host.
pub(super) struct Http {
    pub(super) client: Client,
    /// For calls that a thread waits for: a connection of the runtime on that thread would stand still.
    #[cfg(feature = "blocking")]
    pub(super) waiting: Client,
}

impl Http {
    fn client(&self) -> &Client {
        #[cfg(feature = "blocking")]
        if crate::blocking::is_waiting() {
            return &self.waiting;
        }
        &self.client
    }
}

/// The body of a call, so that each try can write it anew.
pub(super) enum Payload {
    Nothing,
    Json(Bytes),
    /// JSON whose sending is watched.
    Watched(Watched),
    /// Boxed, or every call would have room for it.
    Edit(Box<Edit>),
}

impl Payload {
    pub(super) fn edit(edit: Edit) -> Self {
        Self::Edit(Box::new(edit))
    }

    /// `fields` as JSON, written once for all tries.
    pub(super) fn json(fields: &impl Serialize) -> Result<Self, Error> {
        json::write(fields).map(Self::Json)
    }
}

/// When a call began, and when it must have ended.
#[derive(Clone, Copy)]
pub(super) struct Time {
    pub(super) started: Instant,
    pub(super) deadline: Instant,
}

/// What came of a paid call.
pub(super) struct Paid<T> {
    pub(super) result: T,
    /// How many tries before may have been billed.
    pub(super) lost_bills: u32,
    /// How many tries it took.
    pub(super) attempts: u32,
}

/// What is done, as often as it takes.
pub(super) struct Call<'a> {
    /// All but the body.
    pub(super) request: &'a Request,
    pub(super) payload: &'a Payload,
    pub(super) time: Time,
}

/// Whether a call costs money when it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Billing {
    Paid,
    Free,
}

impl Transport {
    /// The address of `path` under the base address, whose own query is kept.
    pub(super) fn address(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        append(&mut url, path);
        url
    }

    /// The address of `path` in the gateway's own API.
    pub(super) fn native(&self, path: &[&str]) -> Result<Url, Error> {
        let mut url = self.native.clone().ok_or_else(|| {
            let message = "this server has no account and no schemas that are known of; for a gateway under another \
                           address call `.native_url(..)`";
            Error::new(ErrorKind::Unsupported, message)
        })?;
        append(&mut url, path);
        Ok(url)
    }

    /// What tells the service apart from others: its address, and the hash of all that is sent along but for the key and the
    /// name of this crate. Where another version of Rust hashes otherwise, a cache finds nothing and asks.
    pub(super) fn identity(&self, name: &str) -> String {
        let mut hasher = DefaultHasher::new();
        self.base.as_str().hash(&mut hasher);
        for (name, value) in self.headers.iter().filter(|(name, _)| ![AUTHORIZATION, USER_AGENT].contains(name)) {
            (name.as_str(), value.as_bytes()).hash(&mut hasher);
        }
        format!("{name} {} {:016x}", clean::address(&self.base), hasher.finish())
    }

    /// The time of a call that begins now, by the caller's deadline and the client's own.
    pub(super) fn begin(&self, callers_deadline: Option<Instant>) -> Time {
        let started = Instant::now();
        let own = started + self.timeout;
        Time { started, deadline: callers_deadline.map_or(own, |callers| callers.min(own)) }
    }

    /// A request to the API, as yet without a body.
    pub(super) fn request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(method, url);
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// A request with JSON, as yet without it.
    pub(super) fn json_request(&self, url: Url) -> Request {
        let json = HeaderValue::from_static("application/json");
        let mut request = self.request(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, json.clone());
        request.headers_mut().entry(ACCEPT).or_insert(json);
        request
    }

    /// A call that makes images and costs money. `read` makes sense of the answer.
    pub(super) fn pay<T>(
        &self,
        call: &Call<'_>,
        read: &impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> impl Future<Output = Result<Paid<T>, Error>> {
        self.repeat(&self.retry, Billing::Paid, call.time, move || self.attempt(call, Billing::Paid, read))
    }

    /// A call that costs nothing.
    pub(super) async fn ask<T>(
        &self,
        request: &Request,
        payload: &Payload,
        deadline: Option<Instant>,
        read: impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let call = Call { request, payload, time: self.begin(deadline) };
        let attempt = || self.attempt(&call, Billing::Free, &read);
        self.repeat(&self.retry, Billing::Free, call.time, attempt).await.map(|answer| answer.result)
    }

    /// One try of a call.
    pub(super) async fn attempt<T>(
        &self,
        call: &Call<'_>,
        billing: Billing,
        read: &impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = call.time.deadline;
        let silence = match call.payload {
            // It is seen through, whoever has given it up.
            Payload::Watched(_) => Duration::MAX,
            _ => self.silence(billing),
        };
        let content = match call.payload {
            Payload::Nothing | Payload::Edit(_) => None,
            Payload::Json(body) => Some(body.clone().into()),
            Payload::Watched(body) => Some(reqwest::Body::wrap(body.clone())),
        };
        let request = copy(call.request, content);
        // In one go, or the future would have room for the response twice.
        let mut body = self.body(
            match call.payload {
                Payload::Edit(edit) => self.send_edit(request, edit, silence, deadline).await?,
                _ => within(silence, deadline, Part::Head, pin!(self.http.client().execute(request))).await?,
            },
            deadline,
        );
        if !body.is_success() {
            return Err(self.refusal(body.into_response(), billing, deadline).await);
        }
        read(&mut body).await
    }

    fn body(&self, response: Response, deadline: Instant) -> Body<'_> {
        Body::new(response, &self.secrets, self.limit, self.idle, deadline)
    }

    /// Boxed and out of line, or every call would have room for it.
    #[inline(never)]
    fn send_edit<'a>(
        &'a self,
        request: Request,
        edit: &'a Edit,
        silence: Duration,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Response, Failure>> {
        Box::pin(async move {
            let upload = Upload::begin();
            let form = tokio::time::timeout_at(deadline.into(), edit.form(&upload)).await;
            let too_late = |_| Error::new(ErrorKind::Timeout, "the deadline passed while the images were opened");
            let form = form.map_err(too_late).and_then(|form| form).map_err(Failure::not_sent)?;
            let client = self.http.client();
            let request = RequestBuilder::from_parts(client.clone(), request).multipart(form).build();
            let answer = client.execute(request.map_err(Failure::of_sending)?);
            upload.answer(silence, deadline, answer).await
        })
    }

    /// Starts a download. The key is not sent, wherever the address leads.
    pub(super) async fn download(&self, url: Url, retry: &RetryPolicy, deadline: Instant) -> Result<Response, Error> {
        let shown = clean::address(&url);
        self.follow(url, retry, deadline).await.map_err(|error| {
            let error = match error.status() {
                // Signed addresses answer so once they have expired.
                Some(401 | 403 | 404 | 410) => error.with_kind(ErrorKind::NotFound),
                _ => error,
            };
            error.context(format!("cannot fetch the image at {shown} (such addresses expire after about an hour)"))
        })
    }

    /// The answer at the end of a chain of redirects.
    async fn follow(&self, mut url: Url, retry: &RetryPolicy, deadline: Instant) -> Result<Response, Error> {
        for _ in 0..=REDIRECTS {
            let response = self
                .repeat(retry, Billing::Free, Time { started: Instant::now(), deadline }, || async {
                    let answer = pin!(self.http.client().execute(Request::new(Method::GET, url.clone())));
                    let response = within(self.silence(Billing::Free), deadline, Part::Head, answer).await?;
                    match response.status() {
                        status if status.is_success() || status.is_redirection() => Ok(response),
                        _ => Err(self.refusal(response, Billing::Free, deadline).await),
                    }
                })
                .await?
                .result;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = headers::text(response.headers(), LOCATION).and_then(|target| url.join(target).ok());
            url = target.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(|| {
                Error::new(ErrorKind::InvalidResponse, "a redirect leads nowhere")
                    .with_status(response.status().as_u16())
            })?;
        }
        Err(Error::new(ErrorKind::InvalidResponse, format!("there are more than {REDIRECTS} redirects")))
    }

    /// How long the head of an answer may take. Only an image that is being made is a reason for a long silence.
    fn silence(&self, billing: Billing) -> Duration {
        match billing {
            Billing::Paid => self.first_byte,
            Billing::Free => self.first_byte.min(self.idle),
        }
    }

    /// What an answer that is no success means.
    ///
    /// Boxed and out of line, or every call would have room for it.
    #[cold]
    fn refusal(&self, response: Response, billing: Billing, deadline: Instant) -> BoxFuture<'_, Failure> {
        Box::pin(async move {
            let (status, head) = (response.status(), response.headers().clone());
            let body = body::read_some(response, ERROR_BODY, self.idle, deadline).await;
            let failure = Failure::of_answer(status, &head, &body, &self.secrets);
            if billing == Billing::Free { failure.free() } else { failure }
        })
    }

    /// Tries until it succeeds, until trying again is of no use or not allowed, or until the deadline, which each try keeps.
    #[expect(clippy::manual_async_fn, reason = "the future of an async function has room for its arguments twice")]
    pub(super) fn repeat<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        retry: &RetryPolicy,
        billing: Billing,
        Time { started, deadline }: Time,
        attempt: impl Fn() -> F,
    ) -> impl Future<Output = Result<Paid<T>, Error>> {
        async move {
            if started >= deadline {
                return Err(Error::new(ErrorKind::Timeout, "the deadline had passed before the request was sent"));
            }
            let mut attempts = 0;
            let mut bills = Bills::default();
            loop {
                attempts += 1;
                let failure = match attempt().await {
                    Ok(result) => return Ok(Paid { result, lost_bills: bills.tries, attempts }),
                    Err(failure) => failure,
                };
                // A free call that broke or was refused was not billed; one whose answer is of no use says itself whether it was.
                let free = billing == Billing::Free && failure.verdict == Verdict::Ambiguous;
                if !free {
                    bills.add(failure.error.bills());
                }
                let again = match (failure.verdict, billing) {
                    (Verdict::Final | Verdict::NotSent, _) => false,
                    (Verdict::NotExecuted, _) | (Verdict::Ambiguous, Billing::Free) => true,
                    (Verdict::Ambiguous, Billing::Paid) => retry.may_bill_twice,
                };
                let wait = retry.next_wait(attempts, &failure.error, Some(deadline));
                match wait.filter(|_| again) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => {
                        let sent = attempts - u32::from(failure.verdict == Verdict::NotSent);
                        let error = failure.error.with_bills(bills);
                        return Err(if sent == 0 { error } else { error.with_attempts(sent, started.elapsed()) });
                    }
                }
            }
        }
    }
}

/// What one try sends.
fn copy(request: &Request, body: Option<reqwest::Body>) -> Request {
    // Its own copying would begin a table of extensions.
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    *copy.headers_mut() = request.headers().clone();
    *copy.body_mut() = body;
    #[cfg(feature = "otel")]
    super::trace::inject(copy.headers_mut());
    copy
}

/// An id from outside as a segment of a path. Addresses take these for other places.
pub(super) fn segment(id: &str) -> Result<&str, Error> {
    match id {
        "" | "." | ".." => Err(Error::new(ErrorKind::InvalidRequest, format!("{id:?} is no id")).with_parameter("id")),
        _ => Ok(id),
    }
}

fn append(url: &mut Url, path: &[&str]) {
    // An address with a host always has segments; the builder checked the host.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
}
