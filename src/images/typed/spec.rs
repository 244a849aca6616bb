//! What the two plain-data requests have in common, and their `validate()`.

use super::{Mode, Schema, Violation, check};
use crate::backend::{Backend, BoxFuture, EditSpec, GenerateSpec, Options, Output, Request, RequestContext};
use crate::error::Error;
use crate::generated;

/// A request as plain data: [`GenerateSpec`] or [`EditSpec`].
pub trait Spec: Sized + Send {
    /// The model's id.
    fn model(&self) -> &str;
    /// What it asks the model to do.
    fn mode(&self) -> Mode;
    /// What is not required.
    fn options(&self) -> &Options;
    /// What is not required, to change it.
    fn options_mut(&mut self) -> &mut Options;
    /// Whether the model of `schema` takes it.
    ///
    /// # Errors
    /// The first rule that it breaks.
    fn check(&self, schema: &Schema) -> Result<(), Violation>;
    /// Sends it through `backend`.
    fn send(self, backend: &dyn Backend, context: RequestContext) -> BoxFuture<'_, Result<Output, Error>>;
    /// The request in either mode.
    fn into_request(self) -> Request;
}

impl Spec for GenerateSpec {
    fn model(&self) -> &str {
        &self.model
    }

    fn mode(&self) -> Mode {
        Mode::TextToImage
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn check(&self, schema: &Schema) -> Result<(), Violation> {
        schema.check_generate(self)
    }

    fn send(self, backend: &dyn Backend, context: RequestContext) -> BoxFuture<'_, Result<Output, Error>> {
        backend.generate(self, context)
    }

    fn into_request(self) -> Request {
        Request::Generate(self)
    }
}

impl Spec for EditSpec {
    fn model(&self) -> &str {
        &self.model
    }

    fn mode(&self) -> Mode {
        Mode::ImageEdit
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn check(&self, schema: &Schema) -> Result<(), Violation> {
        schema.check_edit(self)
    }

    fn send(self, backend: &dyn Backend, context: RequestContext) -> BoxFuture<'_, Result<Output, Error>> {
        backend.edit(self, context)
    }

    fn into_request(self) -> Request {
        Request::Edit(self)
    }
}

impl GenerateSpec {
    /// A request to `model` with nothing but its prompt.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { model: model.into(), prompt: prompt.into(), options: Options::default() }
    }

    /// The verdict that the typed builders give at compile time, for a value made at run time.
    ///
    /// A model that this crate has no schema for is checked for its sampling controls only; its own
    /// [`Schema::check_generate`] checks the rest.
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
    /// One of kind `InvalidRequest` that names the parameter and the remedy.
    pub fn validate(&self) -> Result<(), Error> {
        validate(self)
    }
}

impl EditSpec {
    /// A request to `model` with nothing but its images.
    pub fn new(model: impl Into<String>, images: impl super::Inputs) -> Self {
        let options = Options::default();
        Self { model: model.into(), images: images.into_inputs(), mask: None, prompt: None, options }
    }

    /// The verdict that the typed builders give at compile time, for a value made at run time.
    ///
    /// A model that this crate has no schema for is checked for its sampling controls only; its own
    /// [`Schema::check_edit`] checks the rest.
    ///
    /// # Errors
    /// One of kind `InvalidRequest` that names the parameter and the remedy.
    pub fn validate(&self) -> Result<(), Error> {
        validate(self)
    }
}

fn validate(spec: &impl Spec) -> Result<(), Error> {
    match generated::schema(spec.model()) {
        Some(schema) => spec.check(schema)?,
        None => {
            check::check_sampling(spec.mode(), &spec.options().sampling)?;
            spec.options().extra.keys().try_for_each(|name| check::check_extra(name))?;
        }
    }
    Ok(())
}
