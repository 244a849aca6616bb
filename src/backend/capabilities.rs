//! The features that a backend supports.

use std::fmt::Display;

use super::{EditSpec, GenerateSpec, Options, Request};
use crate::error::{Error, ErrorKind};
use crate::values::{OutputFormat, Sampling, Size};

/// The features that a backend supports.
///
/// ```
/// use lumenfall::ErrorKind;
/// use lumenfall::backend::{Capabilities, GenerateSpec};
///
/// let mut capabilities = Capabilities::none();
/// capabilities.generate = true;
/// capabilities.size_step = 16;
/// let mut spec = GenerateSpec::new("stable-diffusion-3.5-medium", "a lighthouse");
/// spec.set("size", "1000x1024")?;
/// let error = capabilities.check("example", &spec.into()).unwrap_err();
/// assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("size")));
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Text to image.
    pub generate: bool,
    /// Image edit.
    pub edit: bool,
    /// A mask in an edit.
    pub mask: bool,
    /// Cost estimates with [`Backend::estimate`](super::Backend::estimate).
    pub estimate: bool,
    /// All requests are free, also those that fail or are cancelled, as with a model on this machine.
    pub free: bool,
    /// Results as URLs. If false, every result contains bytes.
    pub urls: bool,
    /// The file formats that it can write.
    pub output_formats: Vec<OutputFormat>,
    /// The number of pixels that width and height must be a multiple of, at least 1.
    pub size_step: u32,
    /// The maximum width and the maximum height, in pixels. `None` if the backend has no limit of its own.
    pub max_size: Option<(u32, u32)>,
    /// The maximum number of input images of an edit. `None` if the backend has no limit of its own.
    pub max_input_images: Option<u32>,
    /// The supported controls of [`Sampling`], by the names of their fields. [`ALL_CONTROLS`](Self::ALL_CONTROLS) lists all.
    pub controls: Vec<&'static str>,
    /// The options of [`LocalOptions`](crate::local::LocalOptions), which only the local backend has.
    pub local_options: bool,
    /// The ids of the models that it runs. `None` if it accepts any model.
    pub models: Option<Vec<String>>,
    /// The hash that identifies the files of a local model; see [`Metadata::fingerprint`](super::Metadata::fingerprint).
    pub fingerprint: Option<String>,
}

impl Capabilities {
    /// The names of all controls of [`Sampling`].
    pub const ALL_CONTROLS: [&'static str; 6] =
        ["seed", "steps", "guidance", "negative_prompt", "strength", "skip_layer_guidance"];

    /// Returns capabilities without any feature, control or limit, as a starting point.
    pub fn none() -> Self {
        Self {
            generate: false,
            edit: false,
            mask: false,
            estimate: false,
            free: false,
            urls: false,
            output_formats: Vec::new(),
            size_step: 1,
            max_size: None,
            max_input_images: None,
            controls: Vec::new(),
            local_options: false,
            models: None,
            fingerprint: None,
        }
    }

    /// Checks that a request needs only these features. Messages contain `backend`, the name of the backend.
    ///
    /// The rules of the model's schema are not checked; see [`GenerateSpec::validate`].
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for the first feature that is not supported. The error names the parameter.
    pub fn check(&self, backend: &str, request: &Request) -> Result<(), Error> {
        let unsupported = |parameter, problem: &dyn Display| unsupported(backend, parameter, problem);
        let model = match request {
            Request::Generate(GenerateSpec { model, .. }) | Request::Edit(EditSpec { model, .. }) => model,
        };
        if let Some(models) = self.models.as_ref().filter(|models| !models.contains(model)) {
            let problem = format!("is `{model}`; it runs {}", models.join(", "));
            return Err(unsupported("model", &problem));
        }
        match request {
            Request::Generate(_) if !self.generate => {
                return Err(unsupported("prompt", &"is without an image; it only edits images"));
            }
            Request::Edit(_) if !self.edit => {
                return Err(unsupported("image", &"is set, but it does not edit images; use another backend"));
            }
            Request::Edit(EditSpec { mask: Some(_), .. }) if !self.mask => {
                return Err(unsupported("mask", &"is not supported; leave the mask out"));
            }
            Request::Edit(EditSpec { images, .. }) => {
                if let Some(max) = self.max_input_images.filter(|max| images.len() > *max as usize) {
                    let problem = format!("has {} images; it supports at most {max}", images.len());
                    return Err(unsupported("image", &problem));
                }
            }
            Request::Generate(_) => {}
        }
        self.check_options(backend, request.options())
    }

    fn check_options(&self, backend: &str, options: &Options) -> Result<(), Error> {
        if let Some(Size::Pixels { width, height }) = options.size {
            self.check_size(backend, width, height)?;
        }
        if let Some(format) = options.output_format.filter(|format| !self.output_formats.contains(format)) {
            let supported: Vec<_> = self.output_formats.iter().copied().map(<&str>::from).collect();
            let remedy = match supported.as_slice() {
                [] => "leave it out".to_owned(),
                formats => format!("it writes {}", formats.join(", ")),
            };
            let problem = format!("is {}; {remedy}", <&str>::from(format));
            return Err(unsupported(backend, "output_format", &problem));
        }
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = &options.sampling;
        let is_set = [
            ("seed", seed.is_some()),
            ("steps", steps.is_some()),
            ("guidance", guidance.is_some()),
            ("negative_prompt", negative_prompt.is_some()),
            ("strength", strength.is_some()),
            ("skip_layer_guidance", skip_layer_guidance.is_some()),
        ];
        #[cfg(feature = "local")]
        if let Some(name) = options.local.first_set().filter(|_| !self.local_options) {
            return Err(unsupported(backend, &name, &"is an option of the local backend; leave it out"));
        }
        match is_set.iter().find(|(name, is_set)| *is_set && !self.controls.contains(name)) {
            Some((name, _)) => Err(unsupported(backend, name, &"is not supported; leave it out")),
            None => Ok(()),
        }
    }

    /// Checks the width and height of an image, in pixels.
    pub(crate) fn check_size(&self, backend: &str, width: u32, height: u32) -> Result<(), Error> {
        let step = self.size_step.max(1);
        let (max_width, max_height) = self.max_size.unwrap_or((u32::MAX, u32::MAX));
        if width.is_multiple_of(step) && height.is_multiple_of(step) && width <= max_width && height <= max_height {
            return Ok(());
        }
        let multiples = (step > 1).then(|| format!("multiples of {step}"));
        let limit = self.max_size.map(|(width, height)| format!("at most {width}x{height}"));
        let rules: Vec<_> = multiples.into_iter().chain(limit).collect();
        let problem = format!("is {width}x{height}; it supports {}", rules.join(", "));
        Err(unsupported(backend, "size", &problem))
    }

    /// Returns what one or the other of two backends supports.
    pub(crate) fn union(self, other: Self) -> Self {
        fn merged<T: PartialEq>(mut one: Vec<T>, other: Vec<T>) -> Vec<T> {
            other.into_iter().for_each(|item| {
                if !one.contains(&item) {
                    one.push(item);
                }
            });
            one
        }
        Self {
            generate: self.generate || other.generate,
            edit: self.edit || other.edit,
            mask: self.mask || other.mask,
            // Any of the backends may run a request, so the cost is known only if all estimate it.
            estimate: self.estimate && other.estimate,
            // A request is free only if no backend that may run it is paid.
            free: self.free && other.free,
            urls: self.urls || other.urls,
            output_formats: merged(self.output_formats, other.output_formats),
            size_step: greatest_common_divisor(self.size_step, other.size_step).max(1),
            max_size: self.max_size.zip(other.max_size).map(|(one, other)| (one.0.max(other.0), one.1.max(other.1))),
            max_input_images: self.max_input_images.zip(other.max_input_images).map(|(one, other)| one.max(other)),
            controls: merged(self.controls, other.controls),
            local_options: self.local_options || other.local_options,
            models: self.models.zip(other.models).map(|(one, other)| merged(one, other)),
            // Any of the backends may run a request.
            fingerprint: self.fingerprint.filter(|one| other.fingerprint.as_ref() == Some(one)),
        }
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

fn unsupported(backend: &str, parameter: &str, problem: &dyn Display) -> Error {
    let message = format!("the backend `{backend}` does not support this request: `{parameter}` {problem}");
    Error::new(ErrorKind::Unsupported, message).with_parameter(parameter)
}
