//! Sending requests: attempts, retries, and one deadline for all of them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use reqwest::{Method, Request, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::HttpClient;
use super::multipart::FileForm;
use super::settings::parse_header;
use super::tracked_body::TrackedBody;
use super::upload::Upload;
use crate::backend::RequestContext;
use crate::error::{Error, ErrorKind};
use crate::remote::redact;
use crate::remote::response::body::{self, Body, Limits};
use crate::remote::response::failure::{Failure, Verdict};
use crate::remote::response::timeout::{Part, within};
use crate::remote::response::{headers, json};
use crate::remote::secrets::Secrets;
use crate::retry::{Attempts, RetryPolicy};
use crate::timer;
use tokio::time::Instant;

/// The maximum size of an error response that is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The maximum number of redirects of a download.
const MAX_REDIRECTS: usize = 5;

/// A connection to a service, with its settings.
pub(crate) struct Transport {
    pub(crate) http: HttpClient,
    pub(crate) base: Url,
    /// The base URL of the gateway's own API, if the service is the gateway.
    pub(crate) native: Option<Url>,
    pub(crate) secrets: Secrets,
    /// The headers of each API request, including the key.
    pub(crate) headers: HeaderMap,
    /// The header that contains the key.
    pub(crate) key_header: HeaderName,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_response_bytes: usize,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("base_url", &redact::url(&self.base)).finish_non_exhaustive()
    }
}

/// The body of a request, from which each attempt builds its own.
pub(crate) enum Payload {
    Empty,
    Json(Bytes),
    Tracked(TrackedBody),
    Form(FileForm),
}

impl Payload {
    pub(crate) fn json(fields: &impl Serialize) -> Result<Self, Error> {
        serialize(fields).map(Self::Json)
    }
}

/// Serializes the body of a request.
pub(crate) fn serialize(fields: &impl Serialize) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(fields).map_err(|error| {
        Error::new(ErrorKind::InvalidRequest, "the request cannot be written as JSON").with_source(error)
    })?;
    Ok(body.into())
}

/// When a call started, and when it must end.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
}

/// The result of a call that succeeded.
pub(crate) struct Completed<T> {
    pub(crate) result: T,
    /// How many failed attempts may have been billed.
    pub(crate) lost_bills: u32,
    pub(crate) attempts: u32,
}

/// A request that is sent until it succeeds or a retry is not allowed.
pub(crate) struct Call<'a> {
    /// The request without its body.
    pub(crate) request: &'a Request,
    pub(crate) payload: &'a Payload,
    pub(crate) time: Time,
    /// Receives the progress. Its other settings are those of the transport; see [`Transport::for_call`].
    pub(crate) context: &'a RequestContext,
}

/// Whether the service bills a request when it executes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Billing {
    Paid,
    Free,
}

impl Transport {
    /// Appends `path` to the base URL, and keeps the query.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        append(self.base.clone(), path)
    }

    /// Appends `path` to the base URL of the gateway's own API.
    pub(crate) fn native(&self, path: &[&str]) -> Result<Url, Error> {
        let url = self.native.clone().ok_or_else(|| {
            let message = "this server is not known to be the gateway, which has the account and the schemas; if it is, \
                           set `.native_url(..)`";
            Error::new(ErrorKind::Unsupported, message)
        })?;
        Ok(append(url, path))
    }

    /// Returns a text that identifies the service for a cache: its URL, and a hash of all headers except the key, the
    /// password and the user agent. (If another version of Rust hashes differently, a cache only misses its entries.)
    pub(crate) fn identity(&self, name: &str) -> String {
        let mut hasher = DefaultHasher::new();
        self.base.as_str().hash(&mut hasher);
        let excluded = [&self.key_header, &AUTHORIZATION, &USER_AGENT];
        for (name, value) in self.headers.iter().filter(|(name, _)| !excluded.contains(name)) {
            (name.as_str(), value.as_bytes()).hash(&mut hasher);
        }
        format!("{name} {} {:016x}", redact::url(&self.base), hasher.finish())
    }

    /// Starts the time of a call. It ends at the caller's deadline or after the client's own timeout.
    pub(crate) fn start(&self, deadline: Option<Instant>) -> Time {
        let started = Instant::now();
        let end = started + self.timeout;
        Time { started, deadline: deadline.map_or(end, |deadline| deadline.min(end)) }
    }

    /// Creates an API request without a body.
    pub(crate) fn request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(method, url);
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// Creates an API request for a JSON body.
    pub(crate) fn json_request(&self, url: Url) -> Request {
        let json = HeaderValue::from_static("application/json");
        let mut request = self.request(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, json.clone());
        request.headers_mut().entry(ACCEPT).or_insert(json);
        request
    }

    /// Returns a transport with the headers and the retry policy of a call, or `None` if the call sets neither.
    ///
    /// All requests that belong to the call use it, such as those for the status of a job. The values of the headers are
    /// secrets in their responses.
    pub(crate) fn for_call(&self, context: &RequestContext) -> Result<Option<Arc<Self>>, Error> {
        if context.headers.is_empty() && context.retry.is_none() {
            return Ok(None);
        }
        let mut headers = self.headers.clone();
        for header in &context.headers {
            let (name, value) = parse_header(header).map_err(|error| error.with_kind(ErrorKind::InvalidRequest))?;
            headers.insert(name, value);
        }
        Ok(Some(Arc::new(Self {
            http: self.http.clone(),
            base: self.base.clone(),
            native: self.native.clone(),
            secrets: self.secrets.with(context.headers.iter().map(|(_, value)| value.clone())),
            headers,
            key_header: self.key_header.clone(),
            retry: context.retry.as_ref().unwrap_or(&self.retry).clone(),
            ..*self
        })))
    }

    /// Sends a request, and reads its response with `read`.
    pub(crate) async fn send<T>(
        &self,
        call: &Call<'_>,
        billing: Billing,
        read: impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> Result<Completed<T>, Error> {
        let attempt = || self.attempt(call, billing, &read);
        self.retry(&self.retry, billing, call.time, call.context, attempt).await
    }

    /// Sends a request that is never billed, without progress, and reads its response with `read`.
    pub(crate) async fn send_free<T>(
        &self,
        request: &Request,
        payload: &Payload,
        deadline: Option<Instant>,
        read: impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let call = Call { request, payload, time: self.start(deadline), context: &RequestContext::default() };
        self.send(&call, Billing::Free, read).await.map(|completed| completed.result)
    }

    /// Sends a free `GET` request and reads its JSON response.
    pub(crate) async fn get_json<T: DeserializeOwned>(&self, url: Url, deadline: Option<Instant>) -> Result<T, Error> {
        self.send_free(&self.request(Method::GET, url), &Payload::Empty, deadline, json::free).await
    }

    /// Sends a request once.
    pub(crate) async fn attempt<T>(
        &self,
        call: &Call<'_>,
        billing: Billing,
        read: &impl AsyncFn(&mut Body<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = call.time.deadline;
        let timeout = self.head_timeout(billing);
        let response = match call.payload {
            // Boxed, because its large future would be part of every request.
            Payload::Form(form) => Box::pin(self.send_form(call.request, form, billing, deadline)).await?,
            Payload::Empty => self.execute(copy(call.request, None), billing, timeout, deadline).await?,
            Payload::Json(body) => {
                self.execute(copy(call.request, Some(body.clone().into())), billing, timeout, deadline).await?
            }
            // Its caller limits the time.
            Payload::Tracked(body) => {
                let request = copy(call.request, Some(reqwest::Body::wrap(body.clone())));
                self.execute(request, billing, Duration::MAX, deadline).await?
            }
        };
        if !response.status().is_success() {
            return Err(Box::pin(self.error_response(response, billing, deadline)).await);
        }
        let limits = Limits {
            bytes: self.max_response_bytes,
            first_byte_timeout: timeout,
            idle_timeout: self.idle_timeout,
            deadline,
        };
        read(&mut Body::new(response, &self.secrets, &self.base, call.context, limits)).await
    }

    async fn execute(
        &self,
        request: Request,
        billing: Billing,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        within(timeout, deadline, Part::Head, self.http.execute(request, billing)).await
    }

    async fn send_form(
        &self,
        request: &Request,
        form: &FileForm,
        billing: Billing,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let upload = Upload::start();
        let form = tokio::time::timeout_at(deadline, form.build(&upload)).await;
        let expired = |_| Error::new(ErrorKind::Timeout, "the deadline expired while the images were opened");
        let form = form.map_err(expired).and_then(|form| form).map_err(Failure::not_sent)?;
        let client = self.http.get(billing).clone();
        let request = RequestBuilder::from_parts(client, copy(request, None)).multipart(form).build();
        let response = self.http.execute(request.map_err(Failure::of_sending)?, billing);
        upload.response(self.head_timeout(billing), deadline, response).await
    }

    /// Starts the download of an image. The key is not sent, unless the service itself requires it for its own images.
    pub(crate) async fn download(&self, url: Url, retry: &RetryPolicy, deadline: Instant) -> Result<Response, Error> {
        let shown = redact::url(&url);
        self.follow(url, retry, deadline).await.map_err(|error| {
            let error = match error.status() {
                // Expired signed URLs respond with these statuses.
                Some(401 | 403 | 404 | 410) => error.with_kind(ErrorKind::NotFound),
                _ => error,
            };
            error.context(format!("cannot download the image at {shown} (such URLs expire after about an hour)"))
        })
    }

    /// Follows redirects and returns the first other response.
    async fn follow(&self, mut url: Url, retry: &RetryPolicy, deadline: Instant) -> Result<Response, Error> {
        let timeout = self.head_timeout(Billing::Free);
        let time = Time { started: Instant::now(), deadline };
        for _ in 0..=MAX_REDIRECTS {
            let attempt = || async {
                let response =
                    self.execute(Request::new(Method::GET, url.clone()), Billing::Free, timeout, deadline).await?;
                let response = self.with_key(response, timeout, deadline).await?;
                match response.status() {
                    status if status.is_success() || status.is_redirection() => Ok(response),
                    _ => Err(self.error_response(response, Billing::Free, deadline).await),
                }
            };
            let response = self.retry(retry, Billing::Free, time, &RequestContext::default(), attempt).await?.result;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = headers::text(response.headers(), LOCATION.as_str()).and_then(|target| url.join(target).ok());
            url = target.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(|| {
                Error::new(ErrorKind::InvalidResponse, "a redirect has no http or https URL")
                    .with_status(response.status().as_u16())
            })?;
        }
        Err(Error::new(ErrorKind::InvalidResponse, format!("there are more than {MAX_REDIRECTS} redirects")))
    }

    /// Requests an image again with the key if the service's own origin rejected the request without it. Returns the first
    /// response if that does not help.
    async fn with_key(&self, response: Response, timeout: Duration, deadline: Instant) -> Result<Response, Failure> {
        let is_rejected = matches!(response.status().as_u16(), 401 | 403);
        let is_own = response.url().origin() == self.base.origin();
        if !is_rejected || !is_own || !self.headers.values().any(HeaderValue::is_sensitive) {
            return Ok(response);
        }
        let request = self.request(Method::GET, response.url().clone());
        let second = self.execute(copy(&request, None), Billing::Free, timeout, deadline).await?;
        let is_accepted = second.status().is_success() || second.status().is_redirection();
        Ok(if is_accepted { second } else { response })
    }

    /// Returns the timeout for the response head. Only generating an image justifies a long wait.
    fn head_timeout(&self, billing: Billing) -> Duration {
        match billing {
            Billing::Paid => self.first_byte_timeout,
            Billing::Free => self.first_byte_timeout.min(self.idle_timeout),
        }
    }

    /// Reads an error response.
    async fn error_response(&self, response: Response, billing: Billing, deadline: Instant) -> Failure {
        let (status, url, head) = (response.status(), response.url().clone(), response.headers().clone());
        let body = body::read_partial(response, MAX_ERROR_BODY, self.idle_timeout, deadline).await;
        // The query of an image's URL can contain a signature, which a response may quote.
        let secrets = self.secrets.with(url.query_pairs().map(|(_, value)| value.into_owned()));
        let failure = Failure::of_response(status, &url, &head, body, &secrets);
        let failure = if billing == Billing::Free { failure.free() } else { failure };
        // The gateway has retried as often as it is configured to, so that further retries would multiply.
        let is_final = headers::is_of_retrying_gateway(&head) && !self.retry.retry_gateways;
        if is_final { Failure::permanent(failure.error) } else { failure }
    }

    /// Repeats `attempt` until it succeeds, until a retry is useless or not allowed, or until the deadline, which `attempt`
    /// must observe itself.
    pub(crate) async fn retry<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        policy: &RetryPolicy,
        billing: Billing,
        Time { started, deadline }: Time,
        context: &RequestContext,
        attempt: impl Fn() -> F,
    ) -> Result<Completed<T>, Error> {
        timer::check()?;
        if started >= deadline {
            return Err(Error::new(ErrorKind::Timeout, "the deadline had expired before the request was sent"));
        }
        let mut attempts = Attempts::new(policy, Some(deadline), started);
        loop {
            let Failure { error, verdict } = match attempt().await {
                Ok(result) => {
                    let lost_bills = attempts.bills.attempts;
                    return Ok(Completed { result, lost_bills, attempts: attempts.failed + 1 });
                }
                // A free request is not billed whether or not it was executed. An unusable response to one says itself
                // whether it may have been billed.
                Err(failure) if billing == Billing::Free && failure.verdict == Verdict::Ambiguous => failure.free(),
                Err(failure) => failure,
            };
            let may_retry = match verdict {
                Verdict::Final | Verdict::NotSent => false,
                Verdict::NotExecuted => true,
                Verdict::Ambiguous => billing == Billing::Free || policy.may_bill_twice,
            };
            if !attempts.retry_after(&error, may_retry, context).await {
                let sent = attempts.failed - u32::from(verdict == Verdict::NotSent);
                let error = error.with_bills(attempts.bills);
                return Err(if sent == 0 { error } else { error.with_attempts(sent, started.elapsed()) });
            }
        }
    }
}

/// Copies a request.
pub(crate) fn copy(request: &Request, body: Option<reqwest::Body>) -> Request {
    let mut copy = Request::new(request.method().clone(), request.url().clone());
    *copy.headers_mut() = request.headers().clone();
    *copy.body_mut() = body;
    #[cfg(feature = "otel")]
    super::trace::inject(copy.headers_mut());
    copy
}

/// Checks an id that is used as a path segment.
pub(crate) fn segment(id: &str) -> Result<&str, Error> {
    match id {
        "" | "." | ".." => {
            Err(Error::new(ErrorKind::InvalidRequest, format!("{id:?} is not a valid id")).with_parameter("id"))
        }
        _ => Ok(id),
    }
}

fn append(mut url: Url, path: &[&str]) -> Url {
    // A URL with a host always has path segments, and the settings require a host.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}
