//! Backends over HTTP: the Lumenfall gateway, any OpenAI-compatible image server, fal.ai and Replicate.
//!
//! | backend | service | API key |
//! |---|---|---|
//! | [`Remote`] | the Lumenfall gateway, or any OpenAI-compatible server | `LUMENFALL_API_KEY` |
//! | [`Fal`] | fal.ai, without the gateway | `FAL_KEY` |
//! | [`Replicate`] | Replicate, without the gateway | `REPLICATE_API_TOKEN` |

// Imports run one way: services, account, http, response, then secrets and redact.
mod account;
pub(crate) mod http;
mod redact;
mod response;
mod secrets;
mod services;

#[cfg(any(test, feature = "_fuzz"))]
mod readers;

pub use account::models::{Model, Models};
pub use account::records::{Page, RequestFilter, RequestPage, RequestRecord, RequestStatus};
pub use account::{Account, Balance, Billed};
#[cfg(any(test, feature = "_fuzz"))]
pub(crate) use readers::{file_name, read_failure, read_images, read_retry_after};
pub use services::{
    DEFAULT_BASE_URL, Fal, FalBuilder, ImageField, Remote, RemoteBuilder, Replay, Replicate, ReplicateBuilder, Server,
};
