//! Sending requests: settings, connections, timeouts, uploads and downloads.

pub(crate) mod basic_auth;
pub(crate) mod client;
pub(crate) mod download;
pub(crate) mod multipart;
mod proxy;
pub(crate) mod settings;
#[cfg(feature = "_rustls")]
mod tls;
#[cfg(feature = "otel")]
mod trace;
pub(crate) mod tracked_body;
pub(crate) mod transport;
pub(crate) mod upload;
