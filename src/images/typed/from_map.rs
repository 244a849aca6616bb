//! Requests from the names and values of parameters, for example from a form.

use serde_json::{Map, Value};

use super::{Inputs, Schema, Spec};
use crate::backend::{EditSpec, GenerateSpec};
use crate::error::Error;

impl Schema {
    /// Creates a text-to-image request from the names and values of its parameters, and checks it.
    ///
    /// ```
    /// use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
    /// use serde_json::json;
    ///
    /// let form = json!({ "prompt": "a lighthouse", "size": "1024x768", "steps": 20 });
    /// let spec = SCHEMA.generate_spec(form.as_object().cloned().unwrap_or_default())?;
    /// assert_eq!(spec.options.sampling.steps, Some(20));
    /// # Ok::<(), lumenfall::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for an unknown name, a value of another type, or the first
    /// violated rule. The error names the parameter.
    pub fn generate_spec(&self, values: Map<String, Value>) -> Result<GenerateSpec, Error> {
        self.fill(GenerateSpec::new(self.id, ""), values)
    }

    /// Creates an edit request from its images and the names and values of its other parameters, and checks it.
    ///
    /// # Errors
    /// The same as [`generate_spec`](Self::generate_spec).
    pub fn edit_spec(&self, images: impl Inputs, values: Map<String, Value>) -> Result<EditSpec, Error> {
        self.fill(EditSpec::new(self.id, images), values)
    }

    fn fill<S: Spec>(&self, mut spec: S, values: Map<String, Value>) -> Result<S, Error> {
        for (name, value) in values {
            self.check_setting(&name, &value)?;
            spec.set(&name, value)?;
        }
        self.check(&spec)?;
        Ok(spec)
    }
}
