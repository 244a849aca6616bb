//! What a user starts from.

use std::sync::Arc;

use crate::backend::Backend;

/// Makes images through a [`Backend`]. Cheap to clone: clones share the backend.
///
/// ```no_run
/// # fn backend() -> impl lumenfall::Backend + 'static { std::sync::Arc::<dyn lumenfall::Backend>::from(unimplemented!() as Box<dyn lumenfall::Backend>) }
/// let client = lumenfall::Client::new(backend());
/// assert!(client.backend().capabilities().generate);
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    backend: Arc<dyn Backend>,
}

impl Client {
    /// A client of any backend: a remote one, a local one, layers around either, or your own.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// The backend that does the work.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
}
