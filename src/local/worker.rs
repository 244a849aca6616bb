//! The thread that computes.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::mpsc as events;

use crate::backend::Progress;
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

    /// Runs a job and waits for its result. The job checks whether its caller has dropped the future, and reports progress,
    /// with its arguments.
    ///
    /// `on_progress` is called while the future is polled, not on the worker thread. It may therefore wait for another
    /// request of the same worker.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        on_progress: impl Fn(Progress),
        job: impl FnOnce(&(dyn Fn() -> bool + Sync), &(dyn Fn(Progress) + Sync)) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, mut receiver) = events::unbounded_channel();
        let others = self.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Pending(Arc::clone(&self.pending));
        if others > 0 {
            let _ = sender.send(Event::Progress(Progress::Queued { position: None }));
        }
        let run = move || {
            let pending = pending;
            let is_cancelled = || sender.is_closed();
            if is_cancelled() {
                return;
            }
            let report = |progress| drop(sender.send(Event::Progress(progress)));
            // A panic must not end the thread, which has to serve other requests.
            let result = catch("the local model panicked", "please report a bug", || job(&is_cancelled, &report));
            // The next request of the caller must not count this one.
            drop(pending);
            let _ = sender.send(Event::Ended(result.flatten()));
        };
        let ended = || Error::new(ErrorKind::Compute, "the thread of the local model has ended; create a new client");
        self.jobs.send(Box::new(run)).map_err(|_| ended())?;
        while let Some(event) = receiver.recv().await {
            match event {
                Event::Progress(progress) => {
                    catch("the progress callback panicked", "correct the callback", || on_progress(progress))?;
                }
                Event::Ended(result) => return result,
            }
        }
        Err(ended())
    }
}

/// A message from the worker thread to the future of a request.
enum Event<T> {
    Progress(Progress),
    Ended(Result<T, Error>),
}

/// Converts a panic to an error.
fn catch<T>(problem: &str, help: &str, run: impl FnOnce() -> T) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let message = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        let message = message.unwrap_or("no message");
        Error::new(ErrorKind::Compute, format!("{problem} ({message}); {help}"))
    })
}
