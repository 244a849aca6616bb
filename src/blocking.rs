//! Waiting for a call without an async runtime of your own. Feature `blocking`.
//!
//! There is one API, and it is async; [`Wait::wait`] takes the place of `.await`:
//!
//! ```no_run
//! use lumenfall::blocking::Wait;
//!
//! # fn main() -> Result<(), lumenfall::Error> {
//! let client = lumenfall::Client::from_env()?;
//! let images = client.images().generate("a lighthouse in a storm").inline().send().wait()?;
//! images[0].save("lighthouse.png").wait()?;
//! # Ok(())
//! # }
//! ```

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, Handle};

use crate::error::{Error, ErrorKind};

/// Waits for any call of this crate.
pub trait Wait<T>: Future<Output = Result<T, Error>> + Sized {
    /// Blocks this thread until the call has ended.
    ///
    /// It also works on a thread of an async runtime, whose other work on that thread stands still meanwhile. Such calls have
    /// connections of their own, which do not. (With an [`http_client`](crate::remote::ClientBuilder::http_client) of yours
    /// they share those of all calls: use one of its own where the same thread also awaits.)
    ///
    /// # Errors
    /// Those of the call, and [`ErrorKind::Io`] where the background thread cannot be started.
    fn wait(self) -> Result<T, Error> {
        let handle = background()
            .as_ref()
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start the background thread: {error}")))?;
        // Sockets and timers made by the call belong to the background thread, which keeps them going.
        let _entered = handle.enter();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        // A task around this one has its turns counted, and would be told to give way where nobody can take over.
        let mut call = pin!(tokio::task::unconstrained(self));
        loop {
            let waiting = Waiting::set(true);
            let polled = call.as_mut().poll(&mut context);
            drop(waiting);
            if let Poll::Ready(result) = polled {
                return result;
            }
            thread::park();
        }
    }
}

impl<T, F: Future<Output = Result<T, Error>>> Wait<T> for F {}

thread_local! {
    static WAITING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread waits for the call that now runs.
pub(crate) fn is_waiting() -> bool {
    WAITING.get()
}

/// The same work for another task, with the connections that the call on this thread uses.
pub(crate) fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let waiting = is_waiting();
    let mut work = Box::pin(work);
    poll_fn(move |context| {
        let _waiting = Waiting::set(waiting);
        work.as_mut().poll(context)
    })
}

/// As long as a call is polled by [`Wait::wait`]. It may wait for another one meanwhile, such as in a callback.
struct Waiting {
    before: bool,
}

impl Waiting {
    fn set(waiting: bool) -> Self {
        Self { before: WAITING.replace(waiting) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.set(self.before);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One thread for the whole program, started when it is first needed.
fn background() -> &'static io::Result<Handle> {
    static BACKGROUND: OnceLock<io::Result<Handle>> = OnceLock::new();
    BACKGROUND.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("lumenfall-blocking".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(handle)
    })
}
