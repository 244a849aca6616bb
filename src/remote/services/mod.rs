//! The services: the gateway and any OpenAI-compatible server, fal.ai, and Replicate.

pub(crate) mod fal;
pub(crate) mod fields;
pub(crate) mod gateway;
mod job;
mod provider;
mod replay;
pub(crate) mod replicate;

pub use fal::{Fal, FalBuilder};
pub use gateway::{DEFAULT_BASE_URL, Remote, RemoteBuilder};
pub use replay::Replay;
pub use replicate::{Replicate, ReplicateBuilder};
