//! The settings that all remote services share, and the [`Transport`] built from them.

use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};

use super::basic_auth::BasicAuth;
use super::client::{AGENT, HttpClient};
use super::transport::Transport;
use crate::error::{Error, ErrorKind};
use crate::remote::redact;
use crate::remote::secrets::{Key, Secrets};
use crate::retry::RetryPolicy;

/// A service's default URL and how it expects its API key.
pub(crate) struct Service {
    pub(crate) base_url: &'static str,
    /// The environment variable that holds the key.
    pub(crate) key_variable: &'static str,
    /// The authentication scheme in the `Authorization` header.
    pub(crate) scheme: &'static str,
}

impl Service {
    /// Returns default settings with the key from the service's own environment variable, if set.
    pub(crate) fn settings_from_env(&self) -> Settings {
        Settings { key: variable(self.key_variable), ..Settings::default() }
    }
}

/// Returns the value of an environment variable, or `None` if it is unset or empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The settings of a remote service.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) base_url: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) key_header: Option<String>,
    pub(crate) without_key: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) http_client: Option<reqwest::Client>,
    pub(crate) proxy: Option<String>,
    pub(crate) retry: RetryPolicy,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_response_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base_url: None,
            key: None,
            key_header: None,
            without_key: false,
            headers: Vec::new(),
            http_client: None,
            proxy: None,
            retry: RetryPolicy::default(),
            timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            // A generation can take seven minutes, during which the service sends nothing.
            first_byte_timeout: Duration::from_secs(480),
            idle_timeout: Duration::from_secs(60),
            max_response_bytes: 256 << 20,
        }
    }
}

/// Timeouts are capped at this value, because clocks cannot represent much longer ones.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Adds the setters of [`Settings`] to a builder with a field `settings`.
macro_rules! settings_methods {
    ($service:literal, $variable:literal) => {
        #[doc = concat!("Sets the API key. [`from_env`](Self::from_env) reads it from `", $variable, "`.")]
        ///
        /// The key is sent to the service's own hosts only, and never printed.
        pub fn api_key(mut self, key: impl Into<String>) -> Self {
            self.settings.key = Some(key.into());
            self
        }

        /// Sends the API key in this header, such as `api-key` (Azure) or `x-api-key`, instead of `Authorization`.
        pub fn api_key_header(mut self, name: impl Into<String>) -> Self {
            self.settings.key_header = Some(name.into());
            self
        }

        /// Sends requests without an API key, for servers that need none.
        pub fn without_key(mut self) -> Self {
            self.settings.without_key = true;
            self
        }

        #[doc = concat!("Sets the base URL. The default is `", $service, "`.")]
        ///
        /// A user name and a password, as in `https://user:password@host/v1`, are sent as Basic authentication. If there is
        /// an API key, too, it needs its own [`api_key_header`](Self::api_key_header).
        pub fn base_url(mut self, url: impl Into<String>) -> Self {
            self.settings.base_url = Some(url.into());
            self
        }

        /// Adds a header to each API request. It is sent with an image download only if the service itself rejects the
        /// download without the key.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.settings.headers.push((name.into(), value.into()));
            self
        }

        /// Sends all requests through this proxy, such as `http://host:8080` or `socks5h://user:password@host:1080`. By
        /// default the system's proxy settings apply.
        ///
        /// The schemes are `http`, `https`, `socks4`, `socks4a`, `socks5` and `socks5h`. [`build`](Self::build) refuses
        /// others, also those in the environment variables `ALL_PROXY`, `HTTP_PROXY` and `HTTPS_PROXY`.
        pub fn proxy(mut self, url: impl Into<String>) -> Self {
            self.settings.proxy = Some(url.into());
            self
        }

        /// Uses your own HTTP client, of `reqwest` 0.13. Feature `reqwest-client`.
        ///
        /// Its proxy, TLS and connect timeout replace the ones set here. Build it with:
        ///
        /// - `redirect(redirect::Policy::none())`, so that no paid request follows a redirect to another host.
        /// - `pool_max_idle_per_host(0)`, so that no paid request is sent on an idle connection, which the server may have
        ///   closed. The backend's own requests leave no idle HTTP/1.1 connections (they have the header
        ///   `Connection: close`), but other requests of the client do, and so does HTTP/2.
        #[cfg(feature = "reqwest-client")]
        pub fn http_client(mut self, client: reqwest::Client) -> Self {
            self.settings.http_client = Some(client);
            self
        }

        /// Sets when failed requests are retried.
        pub fn retry(mut self, policy: $crate::RetryPolicy) -> Self {
            self.settings.retry = policy;
            self
        }

        /// Sets the maximum duration of a call, including retries and waits. The default is 10 minutes.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.timeout = timeout.min($crate::remote::http::settings::MAX_TIMEOUT);
            self
        }

        /// Sets the maximum duration of connecting. The default is 10 seconds.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.connect_timeout = timeout;
            self
        }

        /// Sets the maximum time between the last byte sent and the response headers, and between the headers and the
        /// first byte of the response body. The default is 8 minutes, because a generation can take that long.
        pub fn first_byte_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.first_byte_timeout = timeout;
            self
        }

        /// Sets the maximum time between two parts of a response body, and before the headers and the body of a
        /// response to a free request. The default is 1 minute.
        pub fn idle_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.settings.idle_timeout = timeout;
            self
        }

        /// Sets the maximum size of a response body or of a downloaded image. The default is 256 MiB.
        pub fn max_response_bytes(mut self, bytes: usize) -> Self {
            self.settings.max_response_bytes = bytes;
            self
        }
    };
}
pub(crate) use settings_methods;

impl Settings {
    /// Checks the base URL, and splits off its user name and password.
    pub(crate) fn base_url(&self, service: &Service) -> Result<(Url, Option<BasicAuth>), Error> {
        let mut url = parse_base_url(self.base_url.as_deref().unwrap_or(service.base_url), service.base_url)?;
        let basic = BasicAuth::take(&mut url)?;
        Ok((url, basic))
    }

    /// Checks the settings and builds the transport. `service_headers` are added to each API request; `native` is the base
    /// URL of the gateway's own API.
    pub(crate) fn transport(
        self,
        service: &Service,
        service_headers: HeaderMap,
        native: Option<Url>,
    ) -> Result<Arc<Transport>, Error> {
        let (base, basic) = self.base_url(service)?;
        let key = match (&self.key, self.without_key) {
            (_, true) => None,
            (Some(key), false) => {
                // Only `Authorization` has a scheme.
                let scheme = if self.key_header.is_some() { "" } else { service.scheme };
                Some(Key::new(key, scheme, service.key_variable)?)
            }
            (None, false) if basic.is_some() => None,
            (None, false) => {
                let message = format!(
                    "no API key: set the environment variable {} and use `from_env()`, call `.api_key(..)`, or call \
                     `.without_key()` if the server needs none",
                    service.key_variable
                );
                return Err(configuration(message).with_parameter("api_key"));
            }
        };
        if basic.is_some() && key.is_some() && self.key_header.is_none() {
            let message = "the user name and password of the base URL and the API key are both sent in `Authorization`; send \
                           the key in another header with `.api_key_header(..)`, or call `.without_key()`";
            return Err(configuration(message).with_parameter("base_url"));
        }
        let mut headers = self.headers.iter().map(parse_header).collect::<Result<HeaderMap, Error>>()?;
        headers.extend(service_headers);
        let key_header = match &self.key_header {
            Some(name) => parse_header(&(name.clone(), String::new()))?.0,
            None => AUTHORIZATION,
        };
        headers.extend(key.as_ref().map(|key| (key_header.clone(), key.header())));
        headers.extend(basic.as_ref().map(|basic| (AUTHORIZATION, basic.header.clone())));
        if self.http_client.is_none() {
            headers.entry(USER_AGENT).or_insert(AGENT);
        }
        let http = HttpClient::new(&self, &base)?;
        let header_values = self.headers.iter().map(|(_, value)| value.clone());
        let query = [Some(&base), native.as_ref()].into_iter().flatten().flat_map(Url::query_pairs);
        let secrets = Secrets::new(key.as_ref(), header_values.chain(query.map(|(_, value)| value.into_owned())));
        let secrets = secrets.with_whole(basic.map(|basic| basic.secrets).unwrap_or_default());
        Ok(Arc::new(Transport {
            http,
            base,
            native,
            secrets,
            headers,
            key_header,
            retry: self.retry,
            timeout: self.timeout,
            first_byte_timeout: self.first_byte_timeout,
            idle_timeout: self.idle_timeout,
            max_response_bytes: self.max_response_bytes,
        }))
    }

    /// Formats the settings of the builder `name`, without secrets.
    pub(crate) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = self.base_url.as_deref().and_then(|url| Url::parse(url).ok()).map(|url| redact::url(&url));
        f.debug_struct(name)
            .field("base_url", &base_url)
            .field("key", &self.key.as_ref().map(|_| "…"))
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Parses a base URL. `example` is shown in the error.
pub(crate) fn parse_base_url(text: &str, example: &str) -> Result<Url, Error> {
    let invalid = |why: &str| {
        configuration(format!("the base URL {why}; use a URL such as {example}")).with_parameter("base_url")
    };
    let url = Url::parse(text.trim()).map_err(|error| invalid(&format!("is malformed ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("is neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("has no host"));
    }
    Ok(url)
}

pub(crate) fn parse_header((name, value): &(String, String)) -> Result<(HeaderName, HeaderValue), Error> {
    // The message does not quote the name: it may be a whole line that contains the value.
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| configuration("a header name is malformed; pass the name and the value separately"))?;
    if parsed == AUTHORIZATION {
        return Err(configuration("set the API key with `.api_key(..)`, not as a header"));
    }
    if [CONTENT_TYPE, CONTENT_LENGTH, ACCEPT_ENCODING].contains(&parsed) {
        return Err(configuration(format!("the header {parsed} cannot be set: the client sets it for each request")));
    }
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| configuration(format!("the value of the header {name:?} is malformed")))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

pub(crate) fn configuration(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
