//! Backends around backends.
//!
//! Each layer is a [`Backend`](crate::Backend) itself, so they stack:
//!
//! ```
//! use std::time::Duration;
//!
//! use lumenfall::Client;
//! use lumenfall::layers::{Fallback, Limit, SpendCap};
//!
//! # fn main() -> Result<(), lumenfall::Error> {
//! let gateway = Client::builder().api_key("lmnfl_id.secret").backend()?;
//! let other = Client::builder().without_key().base_url("http://localhost:8080/v1").backend()?;
//!
//! let capped = SpendCap::new(gateway, 5.0, "USD");
//! let limited = Limit::new(capped).concurrency(4).rate(60, Duration::from_secs(60));
//! let client = Client::new(Fallback::new(limited).then(other));
//! # let _ = client;
//! # Ok(())
//! # }
//! ```
//!
#[cfg(feature = "cache")]
mod cache;
mod fallback;
mod limit;
mod retry;
mod spend_cap;

#[cfg(feature = "cache")]
pub use cache::Cache;
pub use fallback::Fallback;
pub use limit::Limit;
pub use retry::Retry;
pub use spend_cap::SpendCap;

/// Sends both modes of a [`Backend`](crate::Backend) through `self.run(request, context)`.
macro_rules! run_both_modes {
    () => {
        fn generate<'a>(
            &'a self,
            spec: $crate::backend::GenerateSpec,
            context: $crate::backend::RequestContext,
        ) -> $crate::backend::BoxFuture<'a, Result<$crate::backend::Output, $crate::Error>> {
            Box::pin(self.run($crate::backend::Request::Generate(spec), context))
        }

        fn edit<'a>(
            &'a self,
            spec: $crate::backend::EditSpec,
            context: $crate::backend::RequestContext,
        ) -> $crate::backend::BoxFuture<'a, Result<$crate::backend::Output, $crate::Error>> {
            Box::pin(self.run($crate::backend::Request::Edit(spec), context))
        }
    };
}
use run_both_modes;

/// Everything of a [`Backend`](crate::Backend) but the two modes, as `self.inner` has it.
macro_rules! inner_does_the_rest {
    () => {
        fn name(&self) -> &str {
            self.inner.name()
        }

        fn identity(&self) -> String {
            self.inner.identity()
        }

        fn capabilities(&self) -> $crate::backend::Capabilities {
            self.inner.capabilities()
        }

        fn estimate<'a>(
            &'a self,
            request: $crate::backend::Request,
            context: $crate::backend::RequestContext,
        ) -> $crate::backend::BoxFuture<'a, Result<$crate::backend::Estimate, $crate::Error>> {
            self.inner.estimate(request, context)
        }

        fn fetch<'a>(
            &'a self,
            address: &'a str,
        ) -> $crate::backend::BoxFuture<'a, Result<$crate::backend::ByteStream, $crate::Error>> {
            self.inner.fetch(address)
        }
    };
}
use inner_does_the_rest;
