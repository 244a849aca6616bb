//! The models that a server offers.

use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::remote::http::transport::{Transport, segment};
use crate::remote::response::lenient;

/// Access to the models of a server; see [`Remote::models`](crate::remote::Remote::models).
#[derive(Clone, Copy, Debug)]
pub struct Models<'a>(pub(crate) &'a Transport);

/// A model that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Model {
    /// The id, such as `stable-diffusion-3.5-medium`.
    pub id: String,
    /// When it was created, in seconds since 1970.
    pub created: Option<u64>,
    /// Its owner.
    pub owned_by: Option<String>,
}

impl Model {
    fn read(model: &Value) -> Option<Self> {
        let text = |name| lenient::text(model, name).map(str::to_owned);
        Some(Self { id: text("id")?, created: lenient::integer(model, "created"), owned_by: text("owned_by") })
    }
}

impl Models<'_> {
    /// Returns all models.
    ///
    /// # Errors
    /// If the service cannot be reached or rejects the request.
    pub async fn list(&self) -> Result<Vec<Model>, Error> {
        let response: Value = self.0.get_json(self.0.url(&["models"]), None).await?;
        // Some servers return the array without the object around it.
        let models =
            response.get("data").unwrap_or(&response).as_array().ok_or_else(|| unreadable("list of models"))?;
        Ok(models.iter().filter_map(Model::read).collect())
    }

    /// Returns one model.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no model with this id.
    pub async fn get(&self, id: &str) -> Result<Model, Error> {
        let response: Value = self.0.get_json(self.0.url(&path(id)?), None).await?;
        Model::read(&response).ok_or_else(|| unreadable("model"))
    }

    /// Returns the parameter schema that the gateway serves for a model, unmodified: its structure is not documented, and
    /// it is not redacted.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the server is not the gateway.
    pub async fn schema_json(&self, id: &str) -> Result<Value, Error> {
        let mut url = self.0.native(&path(id)?)?;
        url.query_pairs_mut().append_pair("schema", "true");
        self.0.get_json(url, None).await
    }
}

/// Splits an id into path segments. An id may have the prefix of a provider, followed by a slash.
fn path(id: &str) -> Result<Vec<&str>, Error> {
    std::iter::once(Ok("models")).chain(id.split('/').map(segment)).collect()
}

fn unreadable(expected: &str) -> Error {
    Error::new(ErrorKind::InvalidResponse, format!("the response is not the expected {expected}"))
}
