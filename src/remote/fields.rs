//! The specs' fields under their names on the wire.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Number, Value};

use crate::backend::{GenerateSpec, Options};
use crate::error::{Error, ErrorKind};
use crate::images::Sampling;
use crate::images::typed::check;

/// The fields of a generation.
pub(super) fn generate(spec: GenerateSpec) -> Result<Fields, Error> {
    let GenerateSpec { model, prompt, options } = spec;
    if options.is_empty() {
        return Ok(Fields::new(model, Some(prompt)));
    }
    if options.sampling.strength.is_some() {
        let message = "strength says how far an edit moves from its source; a generation has none";
        return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("strength"));
    }
    let mut fields = Fields::new(model, Some(prompt));
    // Servers of other models take images with a generation, which has no field for them.
    fields.options(options, &["image", "mask"])?;
    Ok(fields)
}

/// An edit's fields but for its files.
pub(super) fn edit(model: String, prompt: Option<String>, options: Options) -> Result<Fields, Error> {
    let mut fields = Fields::new(model, prompt);
    fields.options(options, &[])?;
    Ok(fields)
}

/// Names and values, none of them twice. There are few, so that a list is the fastest map.
pub(super) struct Fields(Vec<(Cow<'static, str>, Value)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl Fields {
    fn new(model: String, prompt: Option<String>) -> Self {
        let mut fields = Vec::with_capacity(4);
        fields.push(("model".into(), model.into()));
        fields.extend(prompt.map(|prompt| ("prompt".into(), prompt.into())));
        Self(fields)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// `files` may come as extra parameters. No `..` here or in `sampling`: a field that is added to either type must be sent or refused.
    fn options(&mut self, options: Options, files: &[&str]) -> Result<(), Error> {
        let Options {
            provider,
            size,
            aspect_ratio,
            resolution,
            response_format,
            output_format,
            output_compression,
            n,
            user,
            sampling,
            extra,
        } = options;
        if let (Some(provider), Some((_, Value::String(model)))) = (provider, self.0.first_mut()) {
            *model = format!("{provider}/{model}");
        }
        self.set("size", size)?;
        self.set("aspect_ratio", aspect_ratio)?;
        self.set("resolution", resolution)?;
        self.set("response_format", response_format)?;
        self.set("output_format", output_format)?;
        self.set("output_compression", output_compression)?;
        self.set("n", n)?;
        self.set("user", user)?;
        self.sampling(sampling)?;
        for (name, value) in extra {
            if !files.contains(&&*name) {
                check_extra(&name, &["image[]"])?;
            }
            self.0.push((name.into(), value));
        }
        Ok(())
    }

    /// The gateway passes what it does not know on to the provider, under the providers' names.
    fn sampling(&mut self, sampling: Sampling) -> Result<(), Error> {
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance } = sampling;
        if skip_layer_guidance.is_some() {
            let message = "skip-layer guidance is computed on your own machine only (`Client::local`): no remote \
                           provider takes it";
            return Err(Error::new(ErrorKind::Unsupported, message).with_parameter("skip_layer_guidance"));
        }
        self.set("seed", seed)?;
        self.set("num_inference_steps", steps)?;
        self.set("guidance_scale", guidance.map(|guidance| decimal("guidance", guidance)).transpose()?)?;
        self.set("negative_prompt", negative_prompt)?;
        self.set("strength", strength.map(|strength| decimal("strength", strength)).transpose()?)
    }

    #[inline(always)]
    fn set(&mut self, name: &'static str, value: Option<impl Serialize>) -> Result<(), Error> {
        match value {
            Some(value) => self.put(name, value),
            None => Ok(()),
        }
    }

    /// Out of the way of a request that gives few fields.
    #[cold]
    #[inline(never)]
    fn put(&mut self, name: &'static str, value: impl Serialize) -> Result<(), Error> {
        let value = serde_json::to_value(value).map_err(|error| {
            Error::new(ErrorKind::InvalidRequest, format!("{name} cannot be written as JSON: {error}"))
                .with_parameter(name)
        })?;
        self.0.push((name.into(), value));
        Ok(())
    }
}

/// Refuses an extra parameter that has a function of its own, under the name in a spec or as one of `own`: sent twice, who
/// knows which would count, and what it would cost.
pub(super) fn check_extra(name: &str, own: &[&str]) -> Result<(), Error> {
    check::check_extra(name)?;
    if own.contains(&name) {
        let message = format!("the extra parameter `{name}` has a function of its own; use that");
        return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter(name));
    }
    Ok(())
}

/// The number as a person writes it: 0.6, not the 0.6000000238418579 that the nearest `f32` is.
pub(super) fn decimal(name: &str, value: f32) -> Result<Number, Error> {
    value.to_string().parse().ok().and_then(Number::from_f64).ok_or_else(|| {
        Error::new(ErrorKind::InvalidRequest, format!("{name} is {value}; give a finite number")).with_parameter(name)
    })
}
