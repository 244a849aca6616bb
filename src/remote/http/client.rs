//! The underlying HTTP clients.

use std::time::Duration;

use reqwest::header::{CONNECTION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response, Url};

use super::proxy;
use super::settings::{Settings, configuration};
use super::transport::Billing;
use crate::error::Error;

/// The `User-Agent` of this crate.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("lumenfall-rust/", env!("CARGO_PKG_VERSION")));

/// The HTTP clients of a backend.
///
/// No client follows redirects: neither the key nor the prompt may be sent to another host.
#[derive(Clone)]
pub(crate) enum HttpClient {
    /// The clients that this crate builds.
    Own {
        /// Opens a connection for each request.
        paid: Client,
        free: Client,
        /// For calls that block a thread with `.wait()`. A pooled connection of an async runtime on that thread would not
        /// make progress while the thread is blocked.
        #[cfg(feature = "blocking")]
        blocking: Client,
    },
    /// The client that the user has built.
    Custom(Client),
}

impl HttpClient {
    pub(crate) fn new(settings: &Settings, base: &Url) -> Result<Self, Error> {
        if let Some(client) = &settings.http_client {
            return Ok(Self::Custom(client.clone()));
        }
        #[cfg(feature = "_rustls")]
        let tls = super::tls::config(base)?;
        #[cfg(not(any(feature = "_rustls", feature = "native-tls")))]
        if base.scheme() == "https" {
            let message = "this build has no TLS; enable the feature `rustls`, `rustls-ring` or \
                           `native-tls`, or pass your own client with `.http_client(..)` (feature `reqwest-client`)";
            return Err(configuration(message));
        }
        let _ = base;
        let build = |max_idle| {
            let builder = builder(settings)?.pool_max_idle_per_host(max_idle);
            #[cfg(feature = "_rustls")]
            let builder = builder.tls_backend_preconfigured(tls.clone());
            builder
                .build()
                .map_err(|error| configuration("the HTTP client cannot be built").with_source(error.without_url()))
        };
        Ok(Self::Own {
            // A server can close an idle connection at any time. If a request is sent on it at that moment, it is unknown
            // whether the request was executed.
            paid: build(0)?,
            free: build(usize::MAX)?,
            #[cfg(feature = "blocking")]
            blocking: build(usize::MAX)?,
        })
    }

    /// Sends a request and returns the head of its response.
    pub(crate) fn execute(
        &self,
        mut request: Request,
        billing: Billing,
    ) -> impl Future<Output = reqwest::Result<Response>> + use<> {
        if let Self::Custom(_) = self {
            // Its pool cannot be configured here. This keeps HTTP/1.1 connections out of it.
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.get(billing).execute(request)
    }

    /// Returns the client for a request of the current call.
    pub(crate) fn get(&self, billing: Billing) -> &Client {
        match (self, billing) {
            (Self::Custom(client), _) | (Self::Own { paid: client, .. }, Billing::Paid) => client,
            #[cfg(feature = "blocking")]
            (Self::Own { blocking, .. }, Billing::Free) if crate::blocking::is_waiting() => blocking,
            (Self::Own { free, .. }, Billing::Free) => free,
        }
    }
}

fn builder(settings: &Settings) -> Result<reqwest::ClientBuilder, Error> {
    let builder = Client::builder()
        .user_agent(AGENT)
        .connect_timeout(settings.connect_timeout)
        // Shorter than the time after which servers close idle connections: 2 seconds (gunicorn), 5 seconds (uvicorn,
        // Node.js, cpp-httplib), or a minute (load balancers).
        .pool_idle_timeout(Duration::from_millis(1500))
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
    proxy::configure(builder, settings.proxy.as_deref())
}
