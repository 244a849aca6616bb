//! Tests on a paused clock, with real connections.
//!
//! Tokio advances a paused clock to the next timer as soon as no task can run, even if a socket has data. A response would then
//! lose against the timeout that it should prevent. [`paused`] therefore keeps the runtime busy after each step of the test.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::sleep;

/// The number of scheduler rounds after which all sockets are quiet. Each round polls every socket that is ready.
const ROUNDS: u32 = 500;

thread_local! {
    static TEST: RefCell<Option<Waker>> = const { RefCell::new(None) };
}

/// Wakes the test, and records that it has something to do.
struct Step {
    pending: AtomicBool,
    runtime: Waker,
}

impl Wake for Step {
    fn wake(self: Arc<Self>) {
        self.pending.store(true, Ordering::Relaxed);
        self.runtime.wake_by_ref();
    }
}

/// Runs a test on a paused clock, which advances only while nothing is on its way.
///
/// Use only servers that run in the same runtime, such as [`RawServer`](super::RawServer); wiremock has its own thread.
pub(crate) fn paused(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (mut test, mut step, mut rounds) = (pin!(test), None, 0);
    runtime.block_on(poll_fn(|context| {
        let step = step.get_or_insert_with(|| {
            let step = Arc::new(Step { pending: true.into(), runtime: context.waker().clone() });
            TEST.set(Some(step.clone().into()));
            step
        });
        rounds += 1;
        if step.pending.swap(false, Ordering::Relaxed) {
            rounds = 0;
            if test.as_mut().poll(&mut Context::from_waker(&step.clone().into())).is_ready() {
                return Poll::Ready(());
            }
        }
        if rounds < ROUNDS {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }));
}

/// Waits in a server. After a plain timer outside of the test's own future, the clock would run on before the client reacts.
pub(crate) async fn wait(duration: Duration) {
    sleep(duration).await;
    TEST.with_borrow(|test| test.as_ref().map(Waker::wake_by_ref));
}
