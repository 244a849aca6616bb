//! Parts of the comparison: a loopback server, the compared clients, and the memory of a process.

pub mod memory;
pub mod server;
pub mod subject;

/// The error of all parts.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
