//! The submission of a job, which is seen through once it is on its way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::backend::BoxFuture;

/// How long a submission waits for its answer that nobody else waits for.
pub(super) const SEEING_THROUGH: Duration = Duration::from_secs(60);

/// One try to submit a job.
///
/// What is on its way makes a job, whether or not somebody still waits for the answer, and only the answer names the job.
/// So where it is dropped then, it goes on beside the program, for a while, until it has its result; dropping that cancels the
/// job.
pub(super) struct Submission<T: Send + 'static> {
    future: Option<BoxFuture<'static, T>>,
    on_its_way: Arc<AtomicBool>,
}

impl<T: Send + 'static> Submission<T> {
    /// Sends `body` as `send` does.
    pub(super) fn new<F: Future<Output = T> + Send + 'static>(body: Bytes, send: impl FnOnce(Watched) -> F) -> Self {
        let on_its_way = Arc::<AtomicBool>::default();
        let body = Watched { body, taken: Arc::clone(&on_its_way) };
        Self { future: Some(Box::pin(send(body))), on_its_way }
    }
}

impl<T: Send + 'static> Future for Submission<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Nobody asks again after the end.
        let Some(future) = &mut self.future else { return Poll::Pending };
        let result = future.as_mut().poll(context);
        if result.is_ready() {
            self.future = None;
        }
        result
    }
}

impl<T: Send + 'static> Drop for Submission<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take().filter(|_| self.on_its_way.load(Ordering::Relaxed)) {
            beside(async move {
                // The result is dropped here, so that what this makes goes on beside, too.
                drop(tokio::time::timeout(SEEING_THROUGH, future).await);
            });
        }
    }
}

/// Goes on with `work` beside the call, over connections of the same kind. Outside a runtime there is nobody to do it.
pub(super) fn beside(work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
    let runtime = Handle::try_current().ok()?;
    #[cfg(feature = "blocking")]
    let work = crate::blocking::carry(work);
    Some(runtime.spawn(work))
}

/// The body of a request, which tells when a connection has taken it.
#[derive(Clone)]
pub(super) struct Watched {
    body: Bytes,
    taken: Arc<AtomicBool>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::Relaxed);
        let body = std::mem::take(&mut self.body);
        Poll::Ready(if body.is_empty() { None } else { Some(Ok(Frame::data(body))) })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}
