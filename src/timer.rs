//! The async runtime.

use std::panic;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// Checks that the current runtime has a timer. Code that waits for a time calls it first, because tokio panics otherwise.
///
/// # Errors
/// [`ErrorKind::Configuration`] outside a tokio runtime, and in a runtime without timer.
pub(crate) fn check() -> Result<(), Error> {
    in_runtime()?;
    // tokio has no other way to find out.
    panic::catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).map_err(|_| {
        let message = "timeouts, retries and remote requests require a tokio runtime with a timer; call `enable_all()` on its \
            builder";
        Error::new(ErrorKind::Configuration, message)
    })
}

/// Checks that the caller is in a tokio runtime. Code that uses files calls it first, because tokio panics otherwise.
///
/// # Errors
/// [`ErrorKind::Configuration`] outside a tokio runtime.
pub(crate) fn in_runtime() -> Result<(), Error> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| {
        let message =
            "timeouts, files and remote requests require a tokio runtime; create one, and call `enable_all()` on its builder";
        Error::new(ErrorKind::Configuration, message)
    })
}
