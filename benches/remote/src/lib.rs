//! The parts of the comparison: a loopback server, the clients that are compared, and what a process tells of itself.

pub mod memory;
pub mod server;
pub mod subject;

/// What every part may fail with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
