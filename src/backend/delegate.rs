//! A macro for backends that wrap another one. It uses names that the calling
//! module imports with `use crate::backend::*`.

/// Implements all methods of [`Backend`](crate::Backend) except `send` with the wrapped backend.
macro_rules! delegate_rest_to {
    ($self:ident, $inner:expr) => {
        fn name(&$self) -> &str {
            $inner.name()
        }

        fn identity(&$self) -> String {
            $inner.identity()
        }

        fn capabilities(&$self) -> Capabilities {
            $inner.capabilities()
        }

        fn estimate<'a>(&'a $self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Estimate, Error>> {
            $inner.estimate(request, context)
        }

        fn fetch<'a>(&'a $self, url: &'a str) -> BoxFuture<'a, Result<ByteStream, Error>> {
            $inner.fetch(url)
        }
    };
}
pub(crate) use delegate_rest_to;
