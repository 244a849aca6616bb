//! The trait that every way of making images implements, and the plain data that crosses it.
//!
//! The typed builders of [`crate::images`] end in a [`GenerateSpec`] or an [`EditSpec`]; a
//! [`Backend`] turns it into an [`Output`]. Whoever wants to choose parameters in a loop or under
//! an `if` fills in the spec directly and asks its `validate()` for the same verdict that the
//! builders give at compile time.

mod output;
mod price;
mod request;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

pub use output::{Content, Headers, ImageData, Metadata, Output};
pub use price::{Cost, Estimate, EstimateComponent};
pub use request::{EditSpec, GenerateSpec, Options, Progress, Request, RequestContext};

use crate::error::{Error, ErrorKind};
use crate::images::OutputFormat;

/// The future that a [`Backend`] returns. Dropping it stops the work.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A file that arrives piece by piece.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A way of making images: a remote service, this machine, or a layer around another backend.
pub trait Backend: Send + Sync + fmt::Debug {
    /// A short name for messages and metadata, such as `remote` or `local`.
    fn name(&self) -> &str;

    /// What tells its answers from those of another backend, for a cache: two backends of one identity give the same
    /// answer to the same seeded request. It holds no secret. The name, unless a backend knows better.
    fn identity(&self) -> String {
        self.name().to_owned()
    }

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes images from a prompt.
    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Changes images.
    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>>;

    /// Tells what a request would cost, without making anything.
    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>>;

    /// Fetches an image from an address that this backend answered with.
    ///
    /// A backend whose [`Capabilities::addresses`] is true implements this, with its own configured
    /// HTTP client and without its key. The others keep this default, which refuses.
    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        let _ = address;
        let refusal = format!("the backend `{}` answers with bytes, so it has no addresses to fetch", self.name());
        Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, refusal)) })
    }
}

/// A shared backend is a backend.
impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn generate<'a>(&'a self, spec: GenerateSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        (**self).generate(spec, context)
    }

    fn edit<'a>(&'a self, spec: EditSpec, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        (**self).edit(spec, context)
    }

    fn estimate<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
        (**self).estimate(request, context)
    }

    fn fetch<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
        (**self).fetch(address)
    }
}

/// What a backend can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Text to image.
    pub generate: bool,
    /// Image edit.
    pub edit: bool,
    /// A mask in an edit.
    pub mask: bool,
    /// Whether [`Backend::estimate`] answers.
    pub estimate: bool,
    /// Whether an answer can hold addresses (otherwise it always holds bytes).
    pub addresses: bool,
    /// The file formats it can write.
    pub output_formats: Vec<OutputFormat>,
}

impl Capabilities {
    /// No capability at all, to start from.
    pub fn none() -> Self {
        Self {
            generate: false,
            edit: false,
            mask: false,
            estimate: false,
            addresses: false,
            output_formats: Vec::new(),
        }
    }
}
