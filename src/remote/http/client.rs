//! The underlying HTTP clients.

use std::env;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Url};

use super::settings::{Settings, configuration};
use crate::error::Error;

/// The `User-Agent` of this crate.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("lumenfall-rust/", env!("CARGO_PKG_VERSION")));

/// The connection pools.
///
/// No client follows redirects: neither the key nor the prompt may be sent to another host.
#[derive(Clone)]
pub(crate) struct HttpClient {
    client: Client,
    /// For calls that block a thread with `.wait()`. A pooled connection of an async runtime on that thread would not
    /// make progress while the thread is blocked.
    #[cfg(feature = "blocking")]
    blocking: Client,
}

impl HttpClient {
    pub(crate) fn new(settings: &Settings, base: &Url) -> Result<Self, Error> {
        #[cfg(feature = "_rustls")]
        let tls = super::tls::config(base)?;
        #[cfg(not(any(feature = "_rustls", feature = "native-tls")))]
        if base.scheme() == "https" && settings.http_client.is_none() {
            let message = "this build has no TLS; enable the feature `rustls`, `rustls-ring` or \
                           `native-tls`, or pass your own client with `.http_client(..)` (feature `reqwest-client`)";
            return Err(configuration(message));
        }
        let _ = base;
        let build = || {
            if let Some(client) = &settings.http_client {
                return Ok(client.clone());
            }
            let builder = builder(settings)?;
            #[cfg(feature = "_rustls")]
            let builder = builder.tls_backend_preconfigured(tls.clone());
            builder
                .build()
                .map_err(|error| configuration("the HTTP client cannot be built").with_source(error.without_url()))
        };
        Ok(Self {
            client: build()?,
            #[cfg(feature = "blocking")]
            blocking: build()?,
        })
    }

    /// Returns the client for the current call.
    pub(crate) fn get(&self) -> &Client {
        #[cfg(feature = "blocking")]
        if crate::blocking::is_waiting() {
            return &self.blocking;
        }
        &self.client
    }
}

fn builder(settings: &Settings) -> Result<reqwest::ClientBuilder, Error> {
    let builder = Client::builder()
        .user_agent(AGENT)
        .connect_timeout(settings.connect_timeout)
        // Load balancers close idle connections after about a minute. A request sent at that moment is lost, and it is
        // unknown whether it was executed.
        .pool_idle_timeout(Duration::from_secs(30))
        // Nothing is received while an image is generated, and routers drop connections without traffic.
        .tcp_keepalive(Duration::from_secs(30))
        .redirect(Policy::none())
        // This crate requests no compressed responses, and a small compressed body could expand without limit. These calls
        // matter if another crate enables the features of reqwest.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        // `retry` decides about retries, and counts them.
        .retry(reqwest::retry::never().max_retries_per_request(0));
    Ok(match &settings.proxy {
        // The URL may contain a password, so the message does not quote it.
        Some(proxy) => builder.proxy(Proxy::all(proxy).map_err(|_| configuration("the proxy URL is malformed"))?),
        None if system_may_have_proxy() => builder,
        // Otherwise reqwest would look for a proxy at each request.
        None => builder.no_proxy(),
    })
}

/// Whether the system may configure a proxy. On other systems than Windows and macOS, only the environment can.
fn system_may_have_proxy() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some();
    cfg!(any(windows, target_os = "macos"))
        || ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"].iter().any(|name| is_set(name) || is_set(&name.to_lowercase()))
}
