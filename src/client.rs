//! What a user starts from.

use std::sync::Arc;

use crate::backend::Backend;
use crate::error::Error;
use crate::generated::stable_diffusion_3_5_medium::{Requests, StableDiffusion35Medium};
use crate::images::typed::Model;
use crate::remote::ClientBuilder;

/// Makes images through a [`Backend`]. Cheap to clone: clones share the backend.
///
/// ```no_run
/// let client = lumenfall::Client::from_env()?;
/// println!("{:?}", client.backend().capabilities());
/// # Ok::<(), lumenfall::Error>(())
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

    /// A client of the gateway, by the environment: `LUMENFALL_API_KEY` and, if set, `LUMENFALL_BASE_URL`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) where the key is missing or
    /// malformed, or the base address is.
    pub fn from_env() -> Result<Self, Error> {
        ClientBuilder::from_env().build()
    }

    /// Sets up a client of the gateway, or of any OpenAI-compatible server.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The backend that does the work.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Where the requests to Stable Diffusion 3.5 Medium start.
    pub fn images(&self) -> Requests {
        self.images_for::<StableDiffusion35Medium>()
    }

    /// Where the requests to any generated model start.
    pub fn images_for<M: Model>(&self) -> M::Requests {
        M::requests(self)
    }
}
