//! The trait of generated models.

use std::sync::Arc;

use super::Schema;
use crate::backend::Backend;

/// A model with a typed API, for [`Client::images_for`](crate::Client::images_for). The code generator implements it.
pub trait Model {
    /// The model's parameter schema, which requests are checked against at run time.
    const SCHEMA: &'static Schema;

    /// The entry point for requests. It has the methods `generate`, `edit` or both.
    type Requests;

    /// Returns the entry point for requests to this model, which `backend` executes.
    fn requests(backend: Arc<dyn Backend>) -> Self::Requests;
}
