//! Calls without an async runtime. Feature `blocking`.
//!
//! The API of this crate is async. In synchronous code, call [`.wait()`](Wait::wait) instead of `.await`:
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, Handle};

use crate::error::{Error, ErrorKind};

/// Adds [`wait`](Self::wait) to every call of this crate.
pub trait Wait<T>: Future<Output = Result<T, Error>> + Sized {
    /// Blocks the current thread until the call has completed.
    ///
    /// This also works on a thread of an async runtime, but blocks all other tasks on that thread. Such calls therefore use
    /// separate connections, which the blocked tasks cannot stall. Exception: a custom
    /// `RemoteBuilder::http_client` shares its connections with all calls. Use a separate HTTP
    /// client if the same thread also awaits calls.
    ///
    /// # Errors
    /// The errors of the call, and [`ErrorKind::Io`] if the background thread cannot be started.
    fn wait(self) -> Result<T, Error> {
        let handle = background()
            .as_ref()
            .map_err(|error| Error::new(ErrorKind::Io, format!("cannot start the background thread: {error}")))?;
        // Sockets and timers that the call creates are registered with the background runtime, which drives them.
        let _entered = handle.enter();
        let wake = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&wake));
        let mut context = Context::from_waker(&waker);
        // Within a task, tokio would make the call yield to the runtime, which cannot run while this thread is blocked.
        let mut call = pin!(tokio::task::unconstrained(self));
        loop {
            let waiting = Waiting::set(true);
            let polled = call.as_mut().poll(&mut context);
            drop(waiting);
            if let Poll::Ready(result) = polled {
                return result;
            }
            // A call in a progress callback parks the same thread, so it can receive the token of this call.
            while !wake.woken.swap(false, Ordering::Acquire) {
                thread::park();
            }
        }
    }
}

impl<T, F: Future<Output = Result<T, Error>>> Wait<T> for F {}

thread_local! {
    static WAITING: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the call that this thread polls was started by [`Wait::wait`].
pub(crate) fn is_waiting() -> bool {
    WAITING.get()
}

/// Wraps work that continues in another task, so that it uses the same connections as the current call.
pub(crate) fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let waiting = is_waiting();
    let mut work = Box::pin(work);
    poll_fn(move |context| {
        let _waiting = Waiting::set(waiting);
        work.as_mut().poll(context)
    })
}

/// Sets the flag of this thread and restores it on drop. Calls can be nested, for example in a progress callback.
struct Waiting {
    previous: bool,
}

impl Waiting {
    fn set(waiting: bool) -> Self {
        Self { previous: WAITING.replace(waiting) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.set(self.previous);
    }
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Returns the background runtime. The first call starts its thread, which runs until the process ends.
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
