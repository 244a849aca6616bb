//! Checks of requests whose model is known only at run time.

use crate::backend::{EditSpec, GenerateSpec, Request};
use crate::error::Error;
use crate::generated;
use crate::images::typed::{Spec, View, check};

impl GenerateSpec {
    /// Checks the request at run time, by the same schema that the typed builders enforce at compile time.
    ///
    /// If this crate contains no schema for the model, only the rules that apply to every model are checked. Use
    /// [`Schema::check`](crate::images::typed::Schema::check) with a schema of your own for the others.
    ///
    /// ```
    /// use lumenfall::backend::GenerateSpec;
    ///
    /// let mut spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a lighthouse");
    /// assert!(spec.validate().is_ok());
    /// spec.options.n = Some(11);
    /// assert_eq!(spec.validate().unwrap_err().parameter(), Some("n"));
    /// ```
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for the first violated rule. The error names the parameter.
    pub fn validate(&self) -> Result<(), Error> {
        validate(self)
    }
}

impl EditSpec {
    /// Checks the request at run time. See [`GenerateSpec::validate`].
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for the first violated rule. The error names the parameter.
    pub fn validate(&self) -> Result<(), Error> {
        validate(self)
    }
}

impl Request {
    /// Checks the request at run time. See [`GenerateSpec::validate`].
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for the first violated rule. The error names the parameter.
    pub fn validate(&self) -> Result<(), Error> {
        validate(self)
    }
}

fn validate(spec: &impl Spec) -> Result<(), Error> {
    let View { model, .. } = spec.view();
    check::check(generated::schema(model), spec)
}
