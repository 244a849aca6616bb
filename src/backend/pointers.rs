//! Pointers to backends, which are backends themselves.

use std::sync::Arc;

use super::{Backend, BoxFuture, ByteStream, Capabilities, Estimate, Output, Request, RequestContext};
use crate::error::Error;

/// Implements [`Backend`] for a pointer type with the backend that it points to.
///
/// A blanket implementation for `Box<B>` would conflict with the one for layers, because a dependent may implement
/// [`Layer`](crate::layers::Layer) for a box of its own type. So only `Box<dyn Backend>` is a backend.
macro_rules! delegate {
    ($(#[$documentation:meta])* [$($generics:tt)*] $pointer:ty) => {
        $(#[$documentation])*
        impl<$($generics)*> Backend for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn identity(&self) -> String {
                (**self).identity()
            }

            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn check(&self, request: &Request) -> Result<(), Error> {
                (**self).check(request)
            }

            fn send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
                (**self).send(request, context)
            }

            fn estimate<'a>(
                &'a self,
                request: Request,
                context: RequestContext,
            ) -> BoxFuture<'a, Result<Estimate, Error>> {
                (**self).estimate(request, context)
            }

            fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
                (**self).fetch(url)
            }
        }
    };
}

delegate! {
    /// Delegates to the shared backend.
    [B: Backend + ?Sized] Arc<B>
}

delegate! {
    /// Delegates to the boxed backend.
    [] Box<dyn Backend>
}
