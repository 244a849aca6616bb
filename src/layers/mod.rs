//! Backends that wrap another backend to add defaults, retries, a fallback, limits, a spend cap or a cache.
//!
//! Each layer is a [`Backend`](crate::Backend) itself, so layers can be stacked:
//!
//! ```
//! use std::time::Duration;
//!
//! use lumenfall::backend::Cost;
//! use lumenfall::layers::{Fallback, Limit, Retry, SpendCap};
//! use lumenfall::remote::Remote;
//! use lumenfall::{Client, RetryPolicy};
//!
//! # fn main() -> Result<(), lumenfall::Error> {
//! // The layer retries, so that the backends must not.
//! let once = RetryPolicy::none();
//! let gateway = Remote::builder().api_key("lmnfl_id.secret").retry(once.clone()).build()?;
//! let other = Remote::builder().without_key().base_url("http://localhost:8080/v1").retry(once).build()?;
//!
//! let capped = SpendCap::new(gateway, Cost::new(5.0, "USD"));
//! let limited = Limit::new(capped).concurrency(4).rate(60, Duration::from_secs(60));
//! let fallback = Fallback::new(limited).then(other);
//! let client = Client::new(Retry::new(fallback, RetryPolicy::default().max_retries(5)));
//! # let _ = client;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "cache")]
mod cache;
mod defaults;
mod failed_attempts;
mod fallback;
mod limit;
mod retry;
mod spend_cap;

pub use crate::backend::layer::Layer;
#[cfg(feature = "cache")]
pub use cache::Cache;
pub use defaults::Defaults;
pub use fallback::Fallback;
pub use limit::Limit;
pub use retry::Retry;
pub use spend_cap::SpendCap;
