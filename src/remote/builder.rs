//! Settings of a remote client, and what is wrong with them.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::redirect::Policy;
use reqwest::{Proxy, Url};

use super::fal::FalBackend;
use super::key::{Key, Secrets};
use super::replay::Replay;
use super::replicate::ReplicateBackend;
use super::transport::{Http, Transport};
use super::{Remote, clean};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::retry::RetryPolicy;

/// The gateway's OpenAI-compatible base address.
pub const DEFAULT_BASE_URL: &str = "https://api.lumenfall.ai/openai/v1";
const GATEWAY_HOST: &str = "api.lumenfall.ai";

/// Whom a key and a base address belong to.
struct Service {
    base_url: &'static str,
    /// The environment variable of the key.
    variable: &'static str,
    /// The word before the key in the header.
    scheme: &'static str,
}

const GATEWAY: Service = Service { base_url: DEFAULT_BASE_URL, variable: "LUMENFALL_API_KEY", scheme: "Bearer" };
const FAL: Service = Service { base_url: "https://queue.fal.run", variable: "FAL_KEY", scheme: "Key" };
const REPLICATE: Service =
    Service { base_url: "https://api.replicate.com/v1", variable: "REPLICATE_API_TOKEN", scheme: "Bearer" };

/// What the environment says, where it says anything.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Sets up a remote [`Client`]. Nothing is checked before [`build`](Self::build).
///
/// ```
/// use std::time::Duration;
///
/// use lumenfall::Client;
/// use lumenfall::RetryPolicy;
///
/// let client = Client::builder()
///     .api_key("lmnfl_id.secret")
///     .base_url("http://localhost:8080/v1") // any OpenAI-compatible server
///     .timeout(Duration::from_secs(120))
///     .retry(RetryPolicy::default().max_retries(5))
///     .build()?;
/// assert!(!format!("{client:?}").contains("secret"));
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    base_url: Option<String>,
    native_url: Option<String>,
    replay: Option<Replay>,
    key: Option<String>,
    without_key: bool,
    headers: Vec<(String, String)>,
    http: Option<reqwest::Client>,
    proxy: Option<String>,
    retry: RetryPolicy,
    timeout: Duration,
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
    limit: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            base_url: None,
            native_url: None,
            replay: None,
            key: None,
            without_key: false,
            headers: Vec::new(),
            http: None,
            proxy: None,
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(600),
            connect: Duration::from_secs(10),
            // A generation can take seven minutes, and the service says nothing meanwhile.
            first_byte: Duration::from_secs(480),
            idle: Duration::from_secs(60),
            limit: 256 << 20,
        }
    }
}

/// How this crate names itself.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("lumenfall-rust/", env!("CARGO_PKG_VERSION")));

/// A time-out beyond this is none; clocks cannot count much further.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

impl ClientBuilder {
    /// The settings that the environment gives: `LUMENFALL_API_KEY` and, if set, `LUMENFALL_BASE_URL` and
    /// `LUMENFALL_NATIVE_URL`.
    pub fn from_env() -> Self {
        Self {
            key: variable(GATEWAY.variable),
            base_url: variable("LUMENFALL_BASE_URL"),
            native_url: variable("LUMENFALL_NATIVE_URL"),
            ..Self::default()
        }
    }

    /// The settings for fal.ai that the environment gives: `FAL_KEY`.
    pub fn from_fal_env() -> Self {
        Self { key: variable(FAL.variable), ..Self::default() }
    }

    /// The settings for Replicate that the environment gives: `REPLICATE_API_TOKEN`.
    pub fn from_replicate_env() -> Self {
        Self { key: variable(REPLICATE.variable), ..Self::default() }
    }

    /// The key. It is sent to the hosts of the base address and of [`native_url`](Self::native_url) and to no other, and never
    /// printed.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sends no key, for a server that needs none.
    pub fn without_key(mut self) -> Self {
        self.without_key = true;
        self
    }

    /// The address that `images/generations` is appended to; [`DEFAULT_BASE_URL`] by default.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// The base address of the gateway's own API (account, schemas), for a gateway under another address than the
    /// vendor's, such as `http://localhost:8080/v1`.
    ///
    /// It also says that the server *is* the gateway: no other server is asked for an estimate, since one that does not
    /// know the dry run would make the images and bill them.
    pub fn native_url(mut self, url: impl Into<String>) -> Self {
        self.native_url = Some(url.into());
        self
    }

    /// What the gateway's recorder does with each request.
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = Some(replay);
        self
    }

    /// A further header for each call to the API. It is not sent with downloads.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends everything through this proxy. Without it the system's own settings hold.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Your own HTTP client, of `reqwest` 0.13 with a TLS feature of its own. Its proxy, TLS and connect time-out hold instead of those here. Give it
    /// `redirect::Policy::none()`, so that no paid request follows a redirect to another host.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = Some(client);
        self
    }

    /// When a failed request is tried again.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The longest that a call may take, retries and waits included; 10 minutes by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(LONGEST);
        self
    }

    /// The longest that connecting may take; 10 seconds by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// The longest from the last piece sent to the head of the answer; 8 minutes by default, since a generation can take
    /// that long.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte = timeout;
        self
    }

    /// The longest silence within an answer, and before one that costs nothing; 1 minute by default.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle = timeout;
        self
    }

    /// The largest answer, or image at an address, that is read; 256 MiB by default.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the key is missing or cannot stand in a header, or the base
    /// address, a header or the proxy is malformed.
    pub fn build(self) -> Result<Client, Error> {
        self.backend().map(Client::new)
    }

    /// The backend alone, to put layers around it.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn backend(self) -> Result<Remote, Error> {
        Ok(Remote::new(self.transport(&GATEWAY)?))
    }

    /// A backend of fal.ai itself, without the gateway; its key is `FAL_KEY`.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn fal(self) -> Result<FalBackend, Error> {
        Ok(FalBackend::new(self.transport(&FAL)?))
    }

    /// A backend of Replicate itself, without the gateway; its key is `REPLICATE_API_TOKEN`.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn replicate(self) -> Result<ReplicateBackend, Error> {
        Ok(ReplicateBackend::new(self.transport(&REPLICATE)?))
    }

    fn transport(self, service: &Service) -> Result<Arc<Transport>, Error> {
        let base = base_url(self.base_url.as_deref().unwrap_or(service.base_url))?;
        let variable = service.variable;
        let key = match (&self.key, self.without_key) {
            (_, true) => None,
            (Some(key), false) => Some(Key::new(key, service.scheme, variable)?),
            (None, false) => {
                let message = format!(
                    "no API key: set the environment variable {variable}, call `.api_key(..)`, or `.without_key()` for a \
                     server that needs none"
                );
                return Err(configuration(message).with_parameter("api_key"));
            }
        };
        let native = match &self.native_url {
            Some(url) => Some(base_url(url)?),
            None => native_url(&base),
        };
        let mut headers = self.headers.iter().map(header).collect::<Result<HeaderMap, Error>>()?;
        if let Some(replay) = &self.replay {
            headers.extend(replay.headers()?);
        }
        headers.extend(key.as_ref().map(|key| (AUTHORIZATION, key.header())));
        if self.http.is_none() {
            headers.entry(USER_AGENT).or_insert(AGENT);
        }
        let http = match &self.http {
            Some(client) => Http {
                client: client.clone(),
                #[cfg(feature = "blocking")]
                waiting: client.clone(),
            },
            None => self.http(&base)?,
        };
        let own = self.headers.iter().map(|(_, value)| value.clone());
        let query = [Some(&base), native.as_ref()].into_iter().flatten().flat_map(Url::query_pairs);
        let secrets = Secrets::new(key.as_ref(), own.chain(query.map(|(_, value)| value.into_owned())));
        let Self { retry, timeout, first_byte, idle, limit, .. } = self;
        let transport = Transport { http, base, native, secrets, headers, retry, timeout, first_byte, idle, limit };
        Ok(Arc::new(transport))
    }

    fn http(&self, base: &Url) -> Result<Http, Error> {
        #[cfg(feature = "rustls")]
        let tls = super::tls::config(base)?;
        #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
        if base.scheme() == "https" {
            let message = "this build has no TLS; choose the feature `rustls` or `native-tls`, or give your own `.http_client(..)`";
            return Err(configuration(message));
        }
        let _ = base;
        let client = || {
            let builder = self.http_builder()?;
            #[cfg(feature = "rustls")]
            let builder = builder.tls_backend_preconfigured(tls.clone());
            let failed = |error: reqwest::Error| {
                configuration("the HTTP client cannot be set up").with_source(error.without_url())
            };
            builder.build().map_err(failed)
        };
        Ok(Http {
            client: client()?,
            #[cfg(feature = "blocking")]
            waiting: client()?,
        })
    }

    fn http_builder(&self) -> Result<reqwest::ClientBuilder, Error> {
        let builder = reqwest::Client::builder()
            .user_agent(AGENT)
            .connect_timeout(self.connect)
            // Load balancers close idle connections after a minute. A request that meets one on its way is lost, and
            // nobody could say whether it ran.
            .pool_idle_timeout(Duration::from_secs(30))
            // Nothing is heard while an image is made, and routers forget connections on which nothing is heard.
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(Policy::none())
            // Nobody asks for a compressed answer, and a small one could unfold without end. (These matter where another crate
            // switches the features on.)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            // What may be tried again is decided here, for every request and with its count.
            .retry(reqwest::retry::never().max_retries_per_request(0));
        Ok(match &self.proxy {
            // Its address may hold a password, so the message does not quote it.
            Some(proxy) => {
                builder.proxy(Proxy::all(proxy).map_err(|_| configuration("the proxy's address is malformed"))?)
            }
            None if system_may_name_proxy() => builder,
            // Or one would be looked for at each call.
            None => builder.no_proxy(),
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = Url::parse(self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL))
            .map(|url| clean::address(&url))
            .unwrap_or_default();
        f.debug_struct("ClientBuilder")
            .field("base_url", &base_url)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn base_url(text: &str) -> Result<Url, Error> {
    let wrong = |why: &str| {
        configuration(format!("the base address {why}; give one such as {DEFAULT_BASE_URL}")).with_parameter("base_url")
    };
    let url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is malformed ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user name or password in it, which would take the key's place"));
    }
    Ok(url)
}

/// Whether the system may name a proxy. Where it has no settings for that, the environment alone does.
fn system_may_name_proxy() -> bool {
    let named = |name: &str| env::var_os(name).is_some();
    cfg!(any(windows, target_os = "macos"))
        || ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"].iter().any(|name| named(name) || named(&name.to_lowercase()))
}

/// The gateway's two APIs lie beside each other: `/openai/v1` and `/v1`. The path alone does not tell the gateway:
/// servers of others have the same.
fn native_url(base: &Url) -> Option<Url> {
    base.host_str().filter(|host| *host == GATEWAY_HOST)?;
    let path = base.path().trim_end_matches('/').strip_suffix("/openai/v1")?;
    let mut native = base.clone();
    native.set_path(&format!("{path}/v1"));
    Some(native)
}

fn header((name, value): &(String, String)) -> Result<(HeaderName, HeaderValue), Error> {
    // A name that is none may be a whole line, with the value in it.
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| configuration("the name of a header is malformed; give name and value apart"))?;
    if parsed == AUTHORIZATION {
        return Err(configuration("give the key with `.api_key(..)`, not as a header"));
    }
    if [CONTENT_TYPE, CONTENT_LENGTH, ACCEPT_ENCODING].contains(&parsed) {
        return Err(configuration(format!(
            "leave the header {parsed} out: it is set for each call by what it sends and reads"
        )));
    }
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| configuration(format!("the value of the header {name:?} is malformed")))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

fn configuration(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
