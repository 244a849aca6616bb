//! The queue of a pipeline's requests.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;

/// How often a request that waits checks whether it was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// Admits one request at a time. Each uses all threads, the whole memory budget, and its own strengths of LoRAs.
#[derive(Debug, Default)]
pub(super) struct Queue {
    is_busy: Mutex<bool>,
    ended: Condvar,
}

/// The turn of a request, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Queue);

impl Queue {
    /// Waits until no other request runs. It must not be called by a thread of the pipeline's pool, which that request needs.
    pub(super) fn enter(&self, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Turn<'_>> {
        let mut is_busy = self.is_busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *is_busy {
            check_cancelled()?;
            is_busy = match self.ended.wait_timeout(is_busy, CANCEL_INTERVAL) {
                Ok((is_busy, _)) => is_busy,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        *is_busy = true;
        Ok(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.is_busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_request_waits_for_the_one_that_runs() {
        let queue = Queue::default();
        let first = queue.enter(&|| Ok(())).unwrap();
        assert!(matches!(queue.enter(&|| Err(Error::Cancelled)), Err(Error::Cancelled)));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| queue.enter(&|| Ok(())).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        drop(queue.enter(&|| Err(Error::Cancelled)).unwrap());
    }
}
