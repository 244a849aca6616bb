//! TLS with rustls, with the cipher suites of aws-lc or of ring.
//!
//! ring builds in seconds. The C sources of aws-lc take longer, but with them reqwest has a default provider. Without one,
//! a plain `reqwest::Client::new()` elsewhere in the program panics.

use std::sync::{Arc, OnceLock};

use reqwest::Url;
#[cfg(feature = "rustls")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(not(feature = "rustls"))]
use rustls::crypto::ring as provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::error::{Error, ErrorKind};

/// Returns a configuration with the cipher suites of the chosen library, the system's certificates, and HTTP/2 if the server supports it.
///
/// A system without certificates can still use a base URL without TLS, such as a local server.
pub(crate) fn config(base: &Url) -> Result<ClientConfig, Error> {
    // Reading the certificates takes long, so all clients share one configuration.
    static CONFIG: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let failed = |message: &str, error| Error::new(ErrorKind::Configuration, message).with_source(error);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS cannot be configured", error))?;
    let alpn = |mut config: ClientConfig| {
        config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        config
    };
    match builder.clone().with_platform_verifier() {
        Ok(builder) => Ok(CONFIG.get_or_init(|| alpn(builder.with_no_client_auth())).clone()),
        Err(error) if base.scheme() == "https" => {
            let message =
                "the system has no trusted certificates; install them (on Debian: the package ca-certificates)";
            Err(failed(message, error))
        }
        Err(_) => Ok(alpn(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())),
    }
}
