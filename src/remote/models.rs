//! The models that a server offers.

use std::fmt;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::Remote;
use super::json;
use super::lenient::{odd_is_default, readable};
use super::transport::{Payload, segment};
use crate::error::Error;
use crate::images::typed::{self, Change};

/// What [`Remote::models`] gives: questions about models.
#[derive(Clone, Copy, Debug)]
pub struct Models<'a>(pub(super) &'a Remote);

/// A model that a server offers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Model {
    /// Its id, such as `stable-diffusion-3.5-medium`.
    pub id: String,
    /// When it was made, in seconds since 1970.
    #[serde(default, deserialize_with = "odd_is_default")]
    pub created: Option<u64>,
    /// Who made it.
    #[serde(default, deserialize_with = "odd_is_default")]
    pub owned_by: Option<String>,
}

/// The schema of a model as the gateway serves it.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ServedSchema {
    /// The answer as it came.
    pub json: Value,
    /// Where it differs from the compiled schema; empty where it does not.
    pub changes: Vec<Change>,
}

/// Without the answer itself: it gets printed, and what it holds is not known.
impl fmt::Debug for ServedSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedSchema").field("changes", &self.changes).finish_non_exhaustive()
    }
}

/// Some servers leave out what is around the list.
#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Within {
        #[serde(deserialize_with = "readable")]
        data: Vec<Model>,
    },
    Bare(#[serde(deserialize_with = "readable")] Vec<Model>),
}

impl Models<'_> {
    /// All models.
    ///
    /// # Errors
    /// Where the service cannot be reached or refuses.
    pub async fn list(&self) -> Result<Vec<Model>, Error> {
        let url = self.0.transport.address(&["models"]);
        let list: List = self.0.ask(url).await?;
        Ok(match list {
            List::Within { data } | List::Bare(data) => data,
        })
    }

    /// One model.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) where there is none of this id.
    pub async fn get(&self, id: &str) -> Result<Model, Error> {
        let url = self.0.transport.address(&path(id)?);
        self.0.ask(url).await
    }

    /// The schema that the gateway serves for the model `M`, and where it differs from the one that is compiled in.
    ///
    /// ```no_run
    /// use lumenfall::stable_diffusion_3_5_medium::StableDiffusion35Medium;
    ///
    /// # async fn run() -> Result<(), lumenfall::Error> {
    /// let remote = lumenfall::remote::Remote::from_env()?;
    /// let served = remote.models().schema::<StableDiffusion35Medium>().await?;
    /// for change in served.changes.iter().filter(|change| change.is_breaking()) {
    ///     eprintln!("{change}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the server is not the gateway,
    /// [`ErrorKind::InvalidResponse`](crate::ErrorKind::InvalidResponse) where it answers with no schema.
    pub async fn schema<M: typed::Model>(&self) -> Result<ServedSchema, Error> {
        let json = self.schema_json(M::SCHEMA.id).await?;
        Ok(ServedSchema { changes: M::SCHEMA.changes(&json)?, json })
    }

    /// What the gateway serves as the schema of any model, as it came: its form is not documented, nor is it cleaned of what
    /// should not be printed.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the server is not the gateway.
    pub async fn schema_json(&self, id: &str) -> Result<Value, Error> {
        let mut url = self.0.transport.native(&path(id)?)?;
        url.query_pairs_mut().append_pair("schema", "true");
        self.0.ask(url).await
    }
}

/// An id may have a provider's prefix, whose slash is a slash of the path.
fn path(id: &str) -> Result<Vec<&str>, Error> {
    std::iter::once(Ok("models")).chain(id.split('/').map(segment)).collect()
}

impl Remote {
    /// A call that costs nothing and answers with JSON.
    pub(super) async fn ask<T: serde::de::DeserializeOwned>(&self, url: reqwest::Url) -> Result<T, Error> {
        let request = self.transport.request(Method::GET, url);
        self.transport.ask(&request, &Payload::Nothing, None, json::free).await
    }
}
