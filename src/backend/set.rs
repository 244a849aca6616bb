//! Setting parameters by name.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{EditSpec, GenerateSpec, Options, Request};
use crate::error::{Error, ErrorKind};

impl Options {
    /// Sets a parameter by its name in this crate (`steps`) or in the API (`num_inference_steps`). Null removes it.
    ///
    /// A name without a field becomes an [extra](Self::extra) parameter. The value's type is checked, but not the rules of
    /// a model; see [`GenerateSpec::set`] and [`GenerateSpec::validate`].
    ///
    /// ```
    /// use lumenfall::backend::Options;
    /// use serde_json::json;
    ///
    /// let mut options = Options::default();
    /// options.set("size", json!("1024x768"))?;
    /// options.set("steps", json!(20))?;
    /// assert_eq!(options.sampling.steps, Some(20));
    /// assert_eq!(options.set("n", json!("two")).unwrap_err().parameter(), Some("n"));
    /// # Ok::<(), lumenfall::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the parameter's name, if the value has another type.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        let (sampling, value) = (&mut self.sampling, value.into());
        match name {
            "provider" => self.provider = parse(name, value)?,
            "size" => self.size = parse(name, value)?,
            "aspect_ratio" => self.aspect_ratio = parse(name, value)?,
            "resolution" => self.resolution = parse(name, value)?,
            "response_format" => self.response_format = parse(name, value)?,
            "output_format" => self.output_format = parse(name, value)?,
            "output_compression" => self.output_compression = parse(name, value)?,
            "n" => self.n = parse(name, value)?,
            "user" => self.user = parse(name, value)?,
            "seed" => sampling.seed = parse(name, value)?,
            "steps" | "num_inference_steps" => sampling.steps = parse(name, value)?,
            "guidance" | "guidance_scale" => sampling.guidance = parse(name, value)?,
            "negative_prompt" => sampling.negative_prompt = parse(name, value)?,
            "strength" => sampling.strength = parse(name, value)?,
            "skip_layer_guidance" => sampling.skip_layer_guidance = parse(name, value)?,
            #[cfg(feature = "local")]
            "local" => self.local = parse(name, value)?.unwrap_or_default(),
            _ if value.is_null() => drop(self.extra.remove(name)),
            _ => drop(self.extra.insert(name.to_owned(), value)),
        }
        Ok(())
    }
}

impl GenerateSpec {
    /// Sets a parameter by name: `model`, `prompt`, or one of [`Options::set`].
    ///
    /// ```
    /// use lumenfall::backend::GenerateSpec;
    ///
    /// let mut spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a lighthouse");
    /// spec.set("n", 2)?;
    /// spec.set("n", 11)?; // the type is right
    /// assert_eq!(spec.validate().unwrap_err().parameter(), Some("n")); // the value is not
    /// # Ok::<(), lumenfall::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the parameter's name, if the value has another type.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        match name {
            "model" => self.model = required(name, value.into())?,
            "prompt" => self.prompt = required(name, value.into())?,
            _ => self.options.set(name, value)?,
        }
        Ok(())
    }
}

impl EditSpec {
    /// Sets a parameter by name: `model`, `prompt`, or one of [`Options::set`]. Images are set with the fields
    /// [`images`](Self::images) and [`mask`](Self::mask).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the parameter's name, if the value has another type.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        match name {
            "model" => self.model = required(name, value.into())?,
            "prompt" => self.prompt = parse(name, value.into())?,
            _ => self.options.set(name, value)?,
        }
        Ok(())
    }
}

impl Request {
    /// Sets a parameter by name; see [`GenerateSpec::set`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`], with the parameter's name, if the value has another type.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        match self {
            Self::Generate(spec) => spec.set(name, value),
            Self::Edit(spec) => spec.set(name, value),
        }
    }
}

/// Parses a value; null is `None`.
fn parse<T: DeserializeOwned>(name: &str, value: Value) -> Result<Option<T>, Error> {
    Option::<T>::deserialize(value).map_err(|error| {
        let message = format!("`{name}` cannot have this value: {error}");
        Error::new(ErrorKind::InvalidRequest, message).with_parameter(name)
    })
}

fn required<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Error> {
    parse(name, value)?.ok_or_else(|| {
        Error::new(ErrorKind::InvalidRequest, format!("`{name}` is null; set a value")).with_parameter(name)
    })
}
