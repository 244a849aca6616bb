//! Checks of requests at run time, against the same schema from which the builders are generated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde_json::Value;

use super::{Kind, Mode, Parameter, Presence, Schema, Spec, View};
use crate::backend::Options;
use crate::error::{Error, ErrorKind};
use crate::values::{AspectRatio, Resolution, Sampling, Size};

/// The values that a request sets, by their names in the API. A file is represented by null.
type Values<'a> = BTreeMap<&'a str, Value>;

impl Schema {
    /// Checks a request against this schema.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for the first violated rule. The error names the parameter and says what to do.
    pub fn check(&self, spec: &impl Spec) -> Result<(), Error> {
        let View { mode, options, .. } = spec.view();
        self.check_model(spec)?;
        check_options(mode, options)?;
        let values = self.values(spec);
        self.check_names(&values)?;
        self.parameters.iter().try_for_each(|parameter| self.check_parameter(parameter, mode, &values))
    }

    fn check_model(&self, spec: &impl Spec) -> Result<(), Error> {
        let View { mode, model, options, .. } = spec.view();
        if model != self.id {
            return Err(invalid("model", format!("is `{model}`, but this request can be sent to `{}` only", self.id)));
        }
        if !self.modes.contains(&mode) {
            let problem = format!("is {}, which does not support {}; choose another model", self.name, mode.words());
            return Err(invalid("model", problem));
        }
        self.check_provider(mode, options.provider.as_deref())
    }

    /// Returns the values that the request sets, by their names in this schema.
    fn values<'a>(&self, spec: &'a impl Spec) -> Values<'a> {
        let View { prompt, image, mask, options, .. } = spec.view();
        let set = options.parameters().into_iter();
        let mut values: Values = set.map(|set| (self.name_of(set.name, set.wire_name), set.value)).collect();
        values.extend(prompt.map(|prompt| ("prompt", prompt.into())));
        values.extend(image.then_some(("image", Value::Null)));
        values.extend(mask.then_some(("mask", Value::Null)));
        values.extend(options.extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
        values
    }

    /// Rejects fields of the request that are not parameters of this model. `extra` may contain others.
    fn check_names(&self, values: &Values) -> Result<(), Error> {
        let is_unknown =
            |name: &&&str| is_field(name) && !applies_to_every_model(name) && self.parameter(name).is_none();
        match values.keys().find(is_unknown) {
            Some(name) => Err(self.unknown(name)),
            None => Ok(()),
        }
    }

    /// Returns the schema's name of a field of a request, which is the field's name or its name in the API.
    pub(crate) fn name_of(&self, field: &'static str, wire_name: &'static str) -> &'static str {
        if self.parameter(wire_name).is_none() && self.parameter(field).is_some() { field } else { wire_name }
    }

    /// Checks a single value of the parameter `name`, regardless of other parameters.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the value violates a rule. The error names the parameter and says what to do.
    pub fn check_value(&self, name: &str, value: &Value) -> Result<(), Error> {
        let parameter = self.parameter(name).ok_or_else(|| self.unknown(name))?;
        let model = self.name;
        let wrong_type = |expected| invalid(name, format!("must be {expected}"));
        let text = || value.as_str().ok_or_else(|| wrong_type("text"));
        let malformed = |text, form| Some(format!("is {:?}; write {form}", abbreviated(text)));
        let problem = match parameter.kind {
            Kind::Text { max_length } => {
                let length = text()?.chars().count();
                let exceeded = max_length.filter(|max| length > *max);
                exceeded.map(|max| format!("has {length} characters; {model} supports at most {max}"))
            }
            Kind::Choice(choices) => match text()? {
                choice if choices.contains(&choice) => None,
                choice => Some(format!("is {:?}; {model} supports {}", abbreviated(choice), words(choices, "and"))),
            },
            Kind::AspectRatio => match text()? {
                ratio if AspectRatio::parse(ratio).is_ok() => None,
                ratio => malformed(ratio, "a ratio such as \"16:9\", with no side of 0"),
            },
            Kind::Resolution => match text()? {
                resolution if Resolution::parse(resolution).is_ok() => None,
                resolution => malformed(resolution, "a tier such as \"1K\""),
            },
            Kind::Size => match (Size::parse(text()?), self.max_size) {
                (Err(()), _) => malformed(text()?, "\"1024x1024\" with no side of 0, or a ratio such as \"16:9\""),
                (Ok(Size::Pixels { width, height }), Some((max_width, max_height)))
                    if width > max_width || height > max_height =>
                {
                    Some(format!("is {width}x{height}; {model} supports at most {max_width}x{max_height}"))
                }
                (Ok(_), _) => None,
            },
            Kind::Integer { minimum, maximum } => {
                let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                self.outside(number.ok_or_else(|| wrong_type("a whole number"))?, minimum, maximum)
            }
            Kind::Number { minimum, maximum } => {
                self.outside(value.as_f64().ok_or_else(|| wrong_type("a number"))?, minimum, maximum)
            }
            Kind::Boolean if value.is_boolean() => None,
            Kind::Boolean => return Err(wrong_type("true or false")),
            Kind::File { .. } => return Err(wrong_type("a file")),
        };
        problem.map_or(Ok(()), |problem| Err(invalid(name, problem)))
    }

    /// Checks a parameter that is set by name, regardless of other parameters.
    pub(crate) fn check_setting(&self, name: &str, value: &Value) -> Result<(), Error> {
        let api_name = match name {
            "steps" => self.name_of("steps", "num_inference_steps"),
            "guidance" => self.name_of("guidance", "guidance_scale"),
            name => name,
        };
        match self.parameter(api_name) {
            None if applies_to_every_model(api_name) || matches!(name, "model" | "provider") => Ok(()),
            None => Err(self.unknown(name)),
            // Null removes a parameter.
            Some(_) if value.is_null() => Ok(()),
            Some(_) => self.check_value(api_name, value),
        }
    }

    /// Checks a request against this schema, and returns all violated rules, in the order of the parameters. A form can show
    /// each next to its field, which [`Error::parameter`] names.
    ///
    /// ```
    /// use lumenfall::backend::GenerateSpec;
    /// use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
    ///
    /// let mut spec = GenerateSpec::new(SCHEMA.id, "");
    /// spec.options.n = Some(11);
    /// let names: Vec<_> = SCHEMA.check_all(&spec).iter().map(|error| error.parameter().map(str::to_owned)).collect();
    /// assert_eq!(names, [Some("prompt".into()), Some("n".into())]);
    /// ```
    pub fn check_all(&self, spec: &impl Spec) -> Vec<Error> {
        let View { mode, options, .. } = spec.view();
        let general = self.check_model(spec).and_then(|()| check_options(mode, options)).err();
        let values = self.values(spec);
        let unknown = self.check_names(&values).err();
        let parameters =
            self.parameters.iter().filter_map(|parameter| self.check_parameter(parameter, mode, &values).err());
        let mut errors: Vec<Error> = general.into_iter().chain(unknown).chain(parameters).collect();
        let mut seen = BTreeSet::new();
        errors.retain(|error| seen.insert(error.parameter().map(str::to_owned)));
        errors
    }

    /// Describes the problem of a number that is outside its range.
    fn outside<T: PartialOrd + Display>(&self, number: T, minimum: T, maximum: T) -> Option<String> {
        let is_inside = (&minimum..=&maximum).contains(&&number);
        (!is_inside).then(|| format!("is {number}; {} supports {minimum} to {maximum}", self.name))
    }

    fn check_provider(&self, mode: Mode, slug: Option<&str>) -> Result<(), Error> {
        let able: Vec<&str> = self.providers_for(mode).map(|provider| provider.slug).collect();
        let Some(slug) = slug.filter(|slug| !able.contains(slug)) else { return Ok(()) };
        let remedy = match able.as_slice() {
            [] => "leave `provider` unset".to_owned(),
            able => format!("pin {}, or leave `provider` unset", words(able, "or")),
        };
        let problem = format!("is `{slug}`, which does not offer {} with {}; {remedy}", mode.words(), self.name);
        Err(invalid("provider", problem))
    }

    fn check_parameter(&self, parameter: &Parameter, mode: Mode, values: &Values) -> Result<(), Error> {
        let (name, model, mode_words) = (parameter.name, self.name, mode.words());
        let presence = parameter.presence(mode);
        let Some(value) = values.get(name) else {
            return match presence {
                Presence::Required => Err(invalid(name, format!("is missing; {model} requires it for {mode_words}"))),
                Presence::Optional | Presence::Absent => Ok(()),
            };
        };
        if presence == Presence::Absent {
            return Err(invalid(name, format!("is not a parameter of {mode_words} with {model}; remove it")));
        }
        let is_blank = value.as_str().is_some_and(|text| text.chars().all(char::is_whitespace));
        if presence == Presence::Required && is_blank {
            return Err(invalid(name, format!("is blank; {model} requires it for {mode_words}")));
        }
        // Only the request itself can contain files: `extra` cannot contain `image` or `mask`.
        if !matches!(parameter.kind, Kind::File { .. }) {
            self.check_value(name, value)?;
        }
        if let Some(other) = parameter.excludes.iter().find(|other| values.contains_key(*other)) {
            return Err(invalid(name, format!("cannot be combined with `{other}`; remove one of them")));
        }
        for requirement in parameter.requires {
            let other = values.get(requirement.parameter).and_then(|value| value.as_str());
            if !other.is_some_and(|other| requirement.values.contains(&other)) {
                let (other, allowed) = (requirement.parameter, words(requirement.values, "or"));
                let problem = format!("requires `{other}` to be {allowed}; set `{other}`, or remove `{name}`");
                return Err(invalid(name, problem));
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        invalid(name, format!("is not a parameter of {}; remove it", self.name))
    }
}

/// Checks a request against the model's schema, or by the rules of every model if the schema is unknown.
pub(crate) fn check(schema: Option<&Schema>, spec: &impl Spec) -> Result<(), Error> {
    match schema {
        Some(schema) => schema.check(spec),
        None => check_without_schema(spec),
    }
}

fn check_without_schema(spec: &impl Spec) -> Result<(), Error> {
    let View { mode, image, options, .. } = spec.view();
    check_options(mode, options)?;
    check_every_model(spec)?;
    if mode == Mode::ImageEdit && !image {
        let problem = "is missing; an edit needs at least one: `Input::path(..)` or `Input::bytes(..)`";
        return Err(invalid("image", problem));
    }
    Ok(())
}

/// Checks the rules that apply to every model. Each backend of this crate calls it, because a request that is passed to a
/// backend directly was not checked by a client.
pub(crate) fn check_every_model(spec: &impl Spec) -> Result<(), Error> {
    let View { mode, prompt, options, .. } = spec.view();
    check_sampling(mode, &options.sampling)?;
    if options.n == Some(0) {
        return Err(invalid("n", "is 0; it must be at least 1"));
    }
    if mode == Mode::TextToImage && prompt.is_none_or(|prompt| prompt.trim().is_empty()) {
        return Err(invalid("prompt", "is blank; describe the image"));
    }
    Ok(())
}

/// Checks the rules of the optional parameters that apply to every model.
fn check_options(mode: Mode, options: &Options) -> Result<(), Error> {
    check_sampling(mode, &options.sampling)?;
    if options.extra.is_empty() {
        return Ok(());
    }
    options.extra.keys().try_for_each(|name| check_extra(name))?;
    // Some servers use the name of the field, so `extra` may contain it, but not together with the field.
    match options.parameters().iter().find(|set| options.extra.contains_key(set.name)) {
        Some(set) => Err(invalid(set.name, "is set twice, also in `extra`; remove one of them")),
        None => Ok(()),
    }
}

/// Checks the rules of the sampling controls, which apply to every model.
fn check_sampling(mode: Mode, sampling: &Sampling) -> Result<(), Error> {
    let Sampling { seed: _, steps, guidance, negative_prompt: _, strength, skip_layer_guidance } = sampling;
    if *steps == Some(0) {
        return Err(invalid("steps", "is 0; it must be at least 1"));
    }
    if let Some(guidance) = guidance.filter(|guidance| !(guidance.is_finite() && *guidance >= 0.0)) {
        let problem = format!("is {guidance}; it must be 0 or more, and 1 turns guidance off");
        return Err(invalid("guidance", problem));
    }
    if strength.is_some() && mode == Mode::TextToImage {
        return Err(invalid("strength", "is a parameter of image edit, not of text to image; remove it"));
    }
    if let Some(strength) = strength.filter(|strength| !(*strength > 0.0 && *strength <= 1.0)) {
        return Err(invalid("strength", format!("is {strength}; it must be greater than 0 and at most 1")));
    }
    if let Some(skip) = skip_layer_guidance {
        let is_fraction = |value: f32| (0.0..=1.0).contains(&value);
        if !(skip.scale.is_finite() && is_fraction(skip.start) && is_fraction(skip.stop) && skip.start <= skip.stop) {
            let problem = "is invalid: `scale` must be finite, and 0 <= start <= stop <= 1";
            return Err(invalid("skip_layer_guidance", problem));
        }
    }
    Ok(())
}

/// Returns whether a parameter can be set for a model whose schema does not list it.
fn applies_to_every_model(name: &str) -> bool {
    let is_control = matches!(name, "seed" | "num_inference_steps" | "guidance_scale" | "negative_prompt" | "strength");
    is_control || matches!(name, "user" | "skip_layer_guidance" | "local")
}

/// Returns whether requests have a field for the parameter.
fn is_field(name: &str) -> bool {
    let is_layout = matches!(name, "size" | "aspect_ratio" | "resolution");
    let is_output = matches!(name, "response_format" | "output_format" | "output_compression" | "n");
    matches!(name, "model" | "prompt" | "image" | "mask") || is_layout || is_output || applies_to_every_model(name)
}

/// Rejects an extra parameter that has its own field in the request.
pub(crate) fn check_extra(name: &str) -> Result<(), Error> {
    if is_field(name) {
        return Err(invalid(name, "is in `extra`; use its own setter or field instead"));
    }
    Ok(())
}

fn invalid(parameter: &str, problem: impl Display) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("`{parameter}` {problem}")).with_parameter(parameter)
}

/// Returns the start of a text, because a message must not contain a text of any length.
fn abbreviated(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Returns "a, b or c", with `conjunction` before the last item.
fn words(words: &[&str], conjunction: &str) -> String {
    match words {
        [] => "none".into(),
        [one] => (*one).into(),
        [most @ .., last] => format!("{} {conjunction} {last}", most.join(", ")),
    }
}
