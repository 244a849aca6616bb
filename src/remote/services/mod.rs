//! The services: the gateway and any OpenAI-compatible server, fal.ai, and Replicate.

mod encoder;
pub(crate) mod fal;
pub(crate) mod fields;
pub(crate) mod gateway;
mod job;
mod presets;
#[cfg(test)]
mod presets_table;
mod provider;
mod replay;
pub(crate) mod replicate;
mod requested;
mod server;

pub use fal::{Fal, FalBuilder};
pub use gateway::{DEFAULT_BASE_URL, Remote, RemoteBuilder};
pub use replay::Replay;
pub use replicate::{Replicate, ReplicateBuilder};
pub use server::{ImageField, Server};
