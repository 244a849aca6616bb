//! The [`Backend`] trait, which generates images, and the plain data of requests and results.
//!
//! The typed request builders produce a [`GenerateSpec`] or an [`EditSpec`], and a [`Backend`] returns an [`Output`] for it.
//! To set parameters in a loop or under a condition, fill in the spec and call its `validate()`: it applies the rules that
//! the builders check at compile time.

mod cancellation;
mod delegate;
pub(crate) mod fetch;
mod output;
mod price;
mod request;
mod set;
pub(crate) mod stored;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

pub use cancellation::Cancellation;
pub(crate) use delegate::delegate_rest_to;
pub use output::{Content, Headers, ImageData, Metadata, Output, ServiceMetadata};
pub use price::{Cost, Estimate, EstimateComponent};
pub use request::{EditSpec, GenerateSpec, Options, Progress, Request, RequestContext};
pub(crate) use request::{Parameter, before};

use crate::error::{Error, ErrorKind};
use crate::values::OutputFormat;

/// The future of a [`Backend`] method. Dropping it cancels the request.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream of the chunks of a file.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Generates and edits images: a remote service, the local pipeline, or a [layer](crate::layers) that wraps another backend.
///
/// A backend rejects each parameter that it does not support with [`ErrorKind::Unsupported`] and the parameter's name.
/// `testing::conformance` (feature `testing`) checks an implementation.
///
/// ```
/// use lumenfall::backend::*;
/// use lumenfall::{Client, Error, ErrorKind};
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
///     fn capabilities(&self) -> Capabilities {
///         let mut capabilities = Capabilities::none();
///         capabilities.generate = true;
///         capabilities
///     }
///
///     fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
///         Box::pin(async move {
///             let Request::Generate(spec) = request else {
///                 return Err(Error::new(ErrorKind::Unsupported, "the placeholder backend cannot edit images"));
///             };
///             spec.validate()?;
///             context.check_deadline()?;
///             let content = Content::Bytes(self.0.clone());
///             Ok(Output::new(vec![ImageData { content, revised_prompt: None, seed: None }], Metadata::default()))
///         })
///     }
///
///     fn estimate<'a>(&'a self, _: Request, _: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
///         Box::pin(async { Ok(Estimate::new(Cost::nothing())) })
///     }
/// }
///
/// let client = Client::new(Placeholder(bytes::Bytes::from_static(b"\x89PNG...")));
/// ```
pub trait Backend: Send + Sync + fmt::Debug {
    /// Returns a short name for messages and metadata, such as `remote` or `local`.
    fn name(&self) -> &str;

    /// Returns the part of a cache key that identifies this backend. It must not contain secrets. By default the name.
    ///
    /// Two backends with the same identity return the same images for the same seeded request.
    fn identity(&self) -> String {
        self.name().to_owned()
    }

    /// Returns what this backend supports.
    fn capabilities(&self) -> Capabilities;

    /// Executes a request: generates images from a prompt, or edits images.
    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Estimates the cost of a request without sending it.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>>;

    /// Downloads the image at `url`, a URL that this backend returned.
    ///
    /// A backend whose [`Capabilities::urls`] is true implements this with its own HTTP client, and does not send its key.
    /// By default the result is an error of kind [`ErrorKind::Unsupported`].
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let _ = url;
        let message = format!("the backend `{}` returns bytes and cannot download URLs", self.name());
        Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, message)) })
    }
}

/// Delegates to the shared backend.
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        (**self).send(request, context)
    }

    delegate_rest_to!(self, (**self));
}

/// The features that a backend supports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Text to image.
    pub generate: bool,
    /// Image edit.
    pub edit: bool,
    /// A mask in an edit.
    pub mask: bool,
    /// Cost estimates with [`Backend::estimate`].
    pub estimate: bool,
    /// Results as URLs. If false, every result contains bytes.
    pub urls: bool,
    /// The file formats that it can write.
    pub output_formats: Vec<OutputFormat>,
}

impl Capabilities {
    /// Returns capabilities without any feature, as a starting point.
    pub fn none() -> Self {
        Self { generate: false, edit: false, mask: false, estimate: false, urls: false, output_formats: Vec::new() }
    }
}
