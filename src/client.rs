//! The client: the entry point of the typed API.

use std::sync::Arc;

use crate::backend::layer::Layer;
use crate::backend::{Backend, BoxFuture, Output, Request, RequestContext, fetch};
use crate::error::Error;
use crate::generated;
use crate::generated::stable_diffusion_3_5_medium::{Requests, StableDiffusion35Medium};
use crate::images::Any;
use crate::images::typed::{Draft, Model, Spec};
use crate::remote::Remote;
use crate::values::Input;

/// Generates and edits images with a [`Backend`].
///
/// Cloning is cheap: clones share the backend.
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
    /// Creates a client for any backend: a remote one, a local one, layers around either, or a custom one.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// Creates a client for the Lumenfall gateway. It reads the API key from the environment variable `LUMENFALL_API_KEY` and,
    /// if set, the base URL from `LUMENFALL_BASE_URL`.
    ///
    /// For other settings use [`Remote::builder`].
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the key is missing or malformed, or the URL is
    /// malformed.
    pub fn from_env() -> Result<Self, Error> {
        Remote::from_env().map(Self::new)
    }

    /// Returns the backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Returns the request builders of Stable Diffusion 3.5 Medium.
    pub fn images(&self) -> Requests {
        self.images_for::<StableDiffusion35Medium>()
    }

    /// Returns a request from plain data: a [`Request`](crate::backend::Request), a
    /// [`GenerateSpec`](crate::backend::GenerateSpec) or an [`EditSpec`](crate::backend::EditSpec), for example one that was
    /// stored as a job.
    ///
    /// The type of its images does not depend on the response format. Call `.inline()` to receive bytes.
    ///
    /// It is checked against the model's schema if this crate contains it. For a model of your own use the methods
    /// `generate_spec` and `edit_spec` of [`images_for`](Self::images_for).
    pub fn request<S: Spec>(&self, spec: S) -> Draft<S, Any> {
        let schema = generated::schema(spec.view().model);
        Draft::with_schema(Arc::clone(&self.backend), schema, spec)
    }

    /// Returns the request builders of another generated model.
    pub fn images_for<M: Model>(&self) -> M::Requests {
        M::requests(Arc::clone(&self.backend))
    }
}

/// Makes a client a backend, so that it can be wrapped by a [layer](crate::layers).
impl Layer for Client {
    fn inner(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Returns the identity of the backend.
    fn layer_identity(&self) -> String {
        self.backend.identity()
    }

    fn layer_send<'a>(&'a self, request: Request, context: RequestContext) -> BoxFuture<'a, Result<Output, Error>> {
        self.backend.send(request, context)
    }
}

impl Input {
    /// Downloads an image with the HTTP client and proxy of `client`, without its key.
    ///
    /// ```no_run
    /// # async fn run(client: lumenfall::Client) -> Result<(), lumenfall::Error> {
    /// let source = lumenfall::Input::fetch(&client, "https://example.com/source.png").await?;
    /// client.images().edit(source).prompt(lumenfall::prompt!("add a starry night sky")).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of the download; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the client's backend cannot
    /// download URLs.
    pub async fn fetch(client: &Client, url: &str) -> Result<Self, Error> {
        fetch::bytes(&**client.backend(), url).await.map(Self::bytes)
    }
}
