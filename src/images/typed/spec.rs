//! The trait of plain-data requests.

use serde_json::Value;

use super::Mode;
use crate::backend::{EditSpec, GenerateSpec, Options, Request};
use crate::error::Error;
use crate::values::Input;

/// A request as plain data: [`GenerateSpec`], [`EditSpec`], or a [`Request`] of either mode.
pub trait Spec: Send + Into<Request> {
    /// Returns a view of all fields.
    fn view(&self) -> View<'_>;
    /// Returns the optional parameters, to change them.
    fn options_mut(&mut self) -> &mut Options;
    /// Sets the prompt.
    fn set_prompt(&mut self, prompt: String);
    /// Sets a parameter by name; see [`GenerateSpec::set`].
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest), with the parameter's name, if the value has another type.
    fn set(&mut self, name: &str, value: Value) -> Result<(), Error>;
}

/// The fields of a request in either mode.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The mode.
    pub mode: Mode,
    /// The model's id.
    pub model: &'a str,
    /// The prompt, if there is one.
    pub prompt: Option<&'a str>,
    /// Whether the request contains an image.
    pub image: bool,
    /// Whether the request contains a mask.
    pub mask: bool,
    /// The optional parameters.
    pub options: &'a Options,
}

impl Spec for GenerateSpec {
    fn view(&self) -> View<'_> {
        let Self { model, prompt, options } = self;
        let prompt = (!prompt.is_empty()).then_some(prompt.as_str());
        View { mode: Mode::TextToImage, model, prompt, image: false, mask: false, options }
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn set_prompt(&mut self, prompt: String) {
        self.prompt = prompt;
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), Error> {
        Self::set(self, name, value)
    }
}

impl Spec for EditSpec {
    fn view(&self) -> View<'_> {
        let Self { model, images, mask, prompt, options } = self;
        let (image, mask) = (!images.is_empty(), mask.is_some());
        View { mode: Mode::ImageEdit, model, prompt: prompt.as_deref(), image, mask, options }
    }

    fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    fn set_prompt(&mut self, prompt: String) {
        self.prompt = Some(prompt);
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), Error> {
        Self::set(self, name, value)
    }
}

impl Spec for Request {
    fn view(&self) -> View<'_> {
        match self {
            Self::Generate(spec) => spec.view(),
            Self::Edit(spec) => spec.view(),
        }
    }

    fn options_mut(&mut self) -> &mut Options {
        Self::options_mut(self)
    }

    fn set_prompt(&mut self, prompt: String) {
        match self {
            Self::Generate(spec) => spec.set_prompt(prompt),
            Self::Edit(spec) => spec.set_prompt(prompt),
        }
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), Error> {
        Self::set(self, name, value)
    }
}

impl GenerateSpec {
    /// Creates a request to `model` with a prompt and default options.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>) -> Self {
        Self { model: model.into(), prompt: prompt.into(), options: Options::default() }
    }

    /// Sets the optional parameters.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
}

impl EditSpec {
    /// Creates a request to `model` with one or more images and default options.
    pub fn new(model: impl Into<String>, images: impl super::Inputs) -> Self {
        let options = Options::default();
        Self { model: model.into(), images: images.into_inputs(), mask: None, prompt: None, options }
    }

    crate::setters::setters! {
        with_mask: mask = impl Into<Input>,
        with_prompt: prompt = impl Into<String>,
    }

    /// Sets the optional parameters.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }
}
