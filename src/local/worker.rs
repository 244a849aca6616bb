//! The thread that computes.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};

/// A thread that runs one job after the other. It ends when the worker is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    /// The number of jobs that have not ended.
    pending: Arc<AtomicUsize>,
}

/// Counts a job until it is dropped.
struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    pub(super) fn start() -> Result<Self, Error> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::Builder::new().name("lumenfall-local".into());
        thread.spawn(move || queue.into_iter().for_each(|job| job())).map_err(|error| {
            let message = format!("cannot start a thread for the local model: {error}; close other programs");
            Error::new(ErrorKind::Compute, message)
        })?;
        Ok(Self { jobs, pending: Arc::default() })
    }

    /// Runs a job and waits for its result. `on_wait` is called if the job has to wait for others. The job's argument returns true once the future has been dropped.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        on_wait: impl FnOnce(),
        job: impl FnOnce(&(dyn Fn() -> bool + Sync)) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let others = self.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending(Arc::clone(&self.pending));
        if others > 0 {
            on_wait();
        }
        let run = move || {
            let pending = pending;
            let is_cancelled = || sender.is_closed();
            if is_cancelled() {
                return;
            }
            // A panic, for example of a progress callback, must not end the thread, which has to serve other requests.
            let result = panic::catch_unwind(AssertUnwindSafe(|| job(&is_cancelled)));
            // The next request of the caller must not count this one.
            drop(pending);
            let _ = sender.send(result.unwrap_or_else(|payload| Err(panicked(&*payload))));
        };
        let ended = || Error::new(ErrorKind::Compute, "the thread of the local model has ended; create a new client");
        self.jobs.send(Box::new(run)).map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())?
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let message = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("no message");
    let help = "check the progress callback; if it did not panic, please report a bug";
    Error::new(ErrorKind::Compute, format!("the local model panicked ({message}); {help}"))
}
