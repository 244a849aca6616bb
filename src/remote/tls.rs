//! TLS by rustls.
//!
//! reqwest would bring the aws-lc cipher suites, whose C sources take longer to build than all the rest of
//! this crate's dependencies together. ring's are as good for this and build in seconds.

use std::sync::Arc;

use reqwest::Url;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::error::{Error, ErrorKind};

/// ring's cipher suites, the system's certificates, HTTP/2 where the server has it.
///
/// A system without certificates can still talk to a base address without TLS, such as a local server.
pub(super) fn config(base: &Url) -> Result<ClientConfig, Error> {
    let failed = |message: &str, error| Error::new(ErrorKind::Configuration, message).with_source(error);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS cannot be set up", error))?;
    let builder = match builder.clone().with_platform_verifier() {
        Ok(trusting) => trusting,
        Err(error) if base.scheme() == "https" => {
            return Err(failed(
                "the system has no certificates to trust; install them (on Debian: ca-certificates)",
                error,
            ));
        }
        Err(_) => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
    Ok(config)
}
