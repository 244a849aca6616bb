//! The [`Backend`] trait, which generates images, and the plain data of requests and results.
//!
//! The typed request builders produce a [`GenerateSpec`] or an [`EditSpec`], and a [`Backend`] returns an [`Output`] for it.
//! To set parameters in a loop or under a condition, fill in the spec and call its `validate()`: it applies the rules that
//! the builders check at compile time. [`Client::request`](crate::Client::request) sends it.

mod cancellation;
mod capabilities;
pub(crate) mod fetch;
pub(crate) mod layer;
mod model_api;
mod output;
mod pointers;
mod price;
mod request;
pub(crate) mod serde_form;
mod set;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

pub use cancellation::Cancellation;
pub use capabilities::Capabilities;
pub use model_api::ModelApi;
pub use output::{Content, Headers, ImageData, Metadata, Output, ServiceMetadata};
pub use price::{Cost, Estimate, EstimateComponent};
pub use request::{EditSpec, GenerateSpec, Options, Progress, Request, RequestContext};
pub(crate) use request::{Parameter, before};

use crate::error::{Error, ErrorKind};

/// The future of a [`Backend`] method. Dropping it cancels the request.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream of the chunks of a file.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Generates and edits images: a remote service, the local pipeline, or a [layer](crate::layers) that wraps another backend.
///
/// A backend rejects each parameter that it does not support with [`ErrorKind::Unsupported`] and the parameter's name. A backend
/// that wraps another one implements [`Layer`](crate::layers::Layer) instead.
///
/// `testing::conformance` (feature `testing`) checks an implementation.
///
/// ```
/// use lumenfall::backend::*;
/// use lumenfall::{Client, Error};
///
/// /// Returns the same PNG image for every prompt.
/// #[derive(Debug)]
/// struct Placeholder(bytes::Bytes);
///
/// impl Backend for Placeholder {
///     fn name(&self) -> &str {
///         "placeholder"
///     }
///
///     fn identity(&self) -> String {
///         "placeholder".to_owned()
///     }
///
///     fn capabilities(&self) -> Capabilities {
///         let mut capabilities = Capabilities::none();
///         capabilities.generate = true;
///         capabilities
///     }
///
///     fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
///         Box::pin(async move {
///             self.check(&request)?;
///             let Request::Generate(spec) = request else { unreachable!("`check` rejects edits") };
///             spec.validate()?;
///             context.check_deadline()?;
///             Ok(Output::new(vec![ImageData::new(self.0.clone())], Metadata::default()))
///         })
///     }
///
///     fn estimate<'a>(&'a self, _: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
///         Box::pin(async { Ok(Estimate::new(Cost::nothing())) })
///     }
///
///     fn fetch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
///         no_urls(self.name())
///     }
/// }
///
/// let client = Client::new(Placeholder(bytes::Bytes::from_static(b"\x89PNG...")));
/// ```
pub trait Backend: Send + Sync + fmt::Debug {
    /// Returns a short name for messages and metadata, such as `remote` or `local`.
    fn name(&self) -> &str;

    /// Returns the part of a cache key that identifies this backend and those of its settings that change images. It must not
    /// contain secrets.
    ///
    /// Two backends with the same identity return the same images for the same seeded request.
    fn identity(&self) -> String;

    /// Returns what this backend supports.
    fn capabilities(&self) -> Capabilities;

    /// Checks whether this backend supports a request, without sending it.
    ///
    /// By default the request is compared with the [capabilities](Self::capabilities). The rules of the model's schema are not
    /// checked; see [`GenerateSpec::validate`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this backend cannot execute the request, although another one may. The error names the
    /// parameter.
    fn check(&self, request: &Request) -> Result<(), Error> {
        self.capabilities().check(self.name(), request)
    }

    /// Executes a request: generates images from a prompt, or edits images.
    ///
    /// The request may not have been checked by a client. A backend rejects at least a blank prompt and an `n` of 0; see
    /// [`GenerateSpec::validate`].
    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Estimates the cost of a request without sending it.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>>;

    /// Downloads the image at `url`, a URL that this backend returned.
    ///
    /// A backend whose [`Capabilities::urls`] is true implements this with its own HTTP client, and sends its key to no other
    /// service. Other backends return [`no_urls`].
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>>;
}

/// Returns the error of a backend that returns bytes and cannot download URLs. Use it to implement [`Backend::fetch`].
///
/// `name` is the name of the backend.
pub fn no_urls<'a>(name: &str) -> BoxFuture<'a, Result<ByteStream, Error>> {
    let message = format!("the backend `{name}` returns bytes and cannot download URLs");
    Box::pin(std::future::ready(Err(Error::new(ErrorKind::Unsupported, message))))
}
