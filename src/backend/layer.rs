//! Backends that wrap another backend.

use std::any::type_name;
use std::fmt;

use super::{Backend, BoxFuture, ByteStream, Capabilities, Estimate, Output, Request, RequestContext};
use crate::error::Error;

/// A [`Backend`] that wraps another backend and changes its requests or its results.
///
/// A layer implements [`inner`](Self::inner) and [`layer_send`](Self::layer_send). The other methods delegate to the inner
/// backend and can be replaced. Every layer is a backend, so it can be passed to [`Client::new`](crate::Client::new) or
/// wrapped by another layer. Each method `layer_x` implements the method `x` of [`Backend`]. Their names differ, so that both
/// traits can be imported.
///
/// ```
/// use lumenfall::backend::{Backend, BoxFuture, Output, Request, RequestContext};
/// use lumenfall::layers::Layer;
/// use lumenfall::testing::MockBackend;
/// use lumenfall::{Client, Error};
///
/// /// Appends a style to each prompt.
/// #[derive(Debug)]
/// struct Style<B> {
///     inner: B,
///     text: &'static str,
/// }
///
/// impl<B: Backend> Layer for Style<B> {
///     fn inner(&self) -> &dyn Backend {
///         &self.inner
///     }
///
///     fn layer_send<'a>(&'a self, mut request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
///         if let Request::Generate(spec) = &mut request {
///             spec.prompt = format!("{}, {}", spec.prompt, self.text);
///         }
///         self.inner.send(request, context)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let mock = MockBackend::new();
/// let client = Client::new(Style { inner: mock.clone(), text: "a watercolor" });
/// client.images().generate("a lighthouse").send().await?;
/// let [Request::Generate(spec)] = &mock.requests()[..] else { panic!("one request was expected") };
/// assert_eq!(spec.prompt, "a lighthouse, a watercolor");
/// # Ok(())
/// # }
/// ```
pub trait Layer: Send + Sync + fmt::Debug {
    /// Returns the backend that this layer wraps.
    fn inner(&self) -> &dyn Backend;

    /// Executes a request, usually by sending it to the [inner](Self::inner) backend. See [`Backend::send`].
    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Returns the name of the backend. See [`Backend::name`].
    fn layer_name(&self) -> &str {
        self.inner().name()
    }

    /// Returns the part of a cache key that identifies this layer and its backend. See [`Backend::identity`].
    ///
    /// By default it consists of the layer's type and the identity of the inner backend, so the results with and without the
    /// layer have different cache entries. Replace it in two cases:
    ///
    /// - if the images depend on the layer's settings, such as the text of a watermark, to include them;
    /// - if the layer does not change images, to return the inner backend's identity.
    fn layer_identity(&self) -> String {
        format!("{} {}", type_name::<Self>(), self.inner().identity())
    }

    /// Returns the features that are supported. See [`Backend::capabilities`].
    fn layer_capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }

    /// Checks a request without sending it. See [`Backend::check`].
    ///
    /// # Errors
    /// The error of the inner backend.
    fn layer_check(&self, request: &Request) -> Result<(), Error> {
        self.inner().check(request)
    }

    /// Estimates the cost of a request. See [`Backend::estimate`].
    fn layer_estimate<'a>(
        &'a self,
        request: Request,
        context: RequestContext,
    ) -> BoxFuture<'a, Result<Estimate, Error>> {
        self.inner().estimate(request, context)
    }

    /// Downloads an image. See [`Backend::fetch`].
    fn layer_fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        self.inner().fetch(url)
    }
}

/// Makes every layer a backend.
impl<L: Layer> Backend for L {
    fn name(&self) -> &str {
        Layer::layer_name(self)
    }

    fn identity(&self) -> String {
        Layer::layer_identity(self)
    }

    fn capabilities(&self) -> Capabilities {
        Layer::layer_capabilities(self)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        Layer::layer_check(self, request)
    }

    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        Layer::layer_send(self, request, context)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        Layer::layer_estimate(self, request, context)
    }

    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        Layer::layer_fetch(self, url)
    }
}
