//! A layer of this program.

use lumenfall::Error;
use lumenfall::backend::{Backend, BoxFuture, Output, Request, RequestContext};
use lumenfall::layers::Layer;

/// Writes a line for each request: its model, and the number of images or the error.
#[derive(Debug)]
pub(crate) struct Audit<B> {
    inner: B,
    write: fn(String),
}

impl<B: Backend> Audit<B> {
    pub(crate) fn new(inner: B, write: fn(String)) -> Self {
        Self { inner, write }
    }
}

impl<B: Backend> Layer for Audit<B> {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    // The layer does not change images, so a cache can keep them for programs without it.
    fn layer_identity(&self) -> String {
        self.inner.identity()
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        let model = request.model().to_owned();
        Box::pin(async move {
            let result = self.inner.send(request, context).await;
            (self.write)(match &result {
                Ok(output) => format!("{model}: {} images", output.images.len()),
                Err(error) => format!("{model}: {error}"),
            });
            result
        })
    }
}
