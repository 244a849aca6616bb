//! Cancelling a request from elsewhere.

use std::sync::Arc;

use tokio::sync::watch;

/// A handle that cancels requests from another task or thread. Clones cancel the same requests.
///
/// To cancel a request in the task that awaits it, drop its future. The handle serves where that is not possible, for
/// example in blocking code. A cancelled request ends with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
///
/// ```
/// use lumenfall::{Cancellation, ErrorKind};
///
/// # #[cfg(feature = "testing")]
/// # #[tokio::main]
/// # async fn main() {
/// # let client = lumenfall::Client::new(lumenfall::testing::MockBackend::new());
/// let cancellation = Cancellation::new();
/// let request = client.images().generate("a lighthouse").cancel_with(&cancellation);
/// cancellation.cancel(); // usually from another thread
/// assert_eq!(request.send().await.unwrap_err().kind(), ErrorKind::Cancelled);
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<watch::Sender<bool>>);

impl Cancellation {
    /// Creates a handle that has not been cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels all requests that have this handle, also those that are sent later.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Returns whether [`cancel`](Self::cancel) has been called.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until [`cancel`](Self::cancel) is called.
    pub async fn cancelled(&self) {
        // The sender is part of `self`, so the channel stays open.
        let _ = self.0.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}
