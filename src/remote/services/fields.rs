//! The fields of a request to an OpenAI-compatible server.

use serde_json::{Map, Value};

use super::presets::{Control, Parameters, Preset, SizeForm};
use crate::backend::{ModelApi, Options, Parameter};
use crate::error::{Error, ErrorKind};
use crate::images::typed::check;
use crate::values::{OutputFormat, ResponseFormat, Size};

/// The fields of a request by their names on the wire.
pub(crate) type Fields = Map<String, Value>;

/// The start and the end of the JSON in a prompt that stable-diffusion.cpp reads.
const EXTRA_ARGS: [&str; 2] = ["<sd_cpp_extra_args>", "</sd_cpp_extra_args>"];

/// Collects the fields of a request to one kind of server.
pub(crate) struct Writer<'a> {
    pub(crate) preset: &'a Preset,
    pub(crate) parameters: &'a Parameters,
    pub(crate) model: ModelApi,
    /// The names of typed parameters that `extra` may contain.
    pub(crate) allowed_extra: &'static [&'static str],
    /// The names of fields that `extra` may not contain.
    pub(crate) reserved: Vec<&'static str>,
}

impl Writer<'_> {
    /// Returns the fields of a request, without its files.
    pub(crate) fn fields(&self, model: String, prompt: Option<String>, options: Options) -> Result<Fields, Error> {
        let model = match &options.provider {
            Some(_) if !self.preset.providers => {
                return Err(self.unsupported("provider", "providers can be pinned with the gateway only"));
            }
            Some(provider) => format!("{provider}/{model}"),
            None => model,
        };
        let mut fields = Fields::from_iter([("model".to_owned(), model.into())]);
        let mut prompt = prompt.map(|prompt| self.checked_prompt(prompt)).transpose()?;
        let mut in_prompt = Fields::new();
        for Parameter { name, wire_name, value } in options.parameters() {
            if let Some((_, reason)) = self.parameters.refused.iter().find(|(refused, _)| *refused == name) {
                return Err(self.unsupported(name, reason));
            }
            match self.parameters.control(name) {
                None => self.add_option(&mut fields, &options, name, wire_name, value)?,
                Some(Control::Field(field)) => drop(fields.insert(field.to_owned(), finite(name, value)?)),
                Some(Control::SchemaField) => {
                    let field = if name == "steps" { self.model.steps } else { self.model.guidance };
                    fields.insert(field.to_owned(), finite(name, value)?);
                }
                Some(Control::ExtraArgs(path)) => insert(&mut in_prompt, path, finite(name, value)?),
                Some(Control::AfterBar) => {
                    let text = value.as_str().unwrap_or_default();
                    prompt = Some(format!("{}|{text}", prompt.unwrap_or_default()));
                }
                Some(Control::Refused(reason)) => return Err(self.unsupported(name, reason)),
            }
        }
        self.add_extra(&mut fields, &mut in_prompt, options.extra)?;
        if !in_prompt.is_empty() {
            let [start, end] = EXTRA_ARGS;
            // The server would take an end tag inside of a value for the end of the JSON.
            let json = Value::from(in_prompt).to_string().replace('<', "\\u003c");
            prompt = Some(format!("{}{start}{json}{end}", prompt.unwrap_or_default()));
        }
        fields.extend(prompt.map(|prompt| ("prompt".to_owned(), prompt.into())));
        Ok(fields)
    }

    fn add_option(
        &self,
        fields: &mut Fields,
        options: &Options,
        name: &'static str,
        wire_name: &str,
        value: Value,
    ) -> Result<(), Error> {
        let value = match (name, self.preset.size) {
            ("size", SizeForm::WidthAndHeight | SizeForm::Pixels) => match (options.size, self.preset.size) {
                (Some(Size::Pixels { width, height }), SizeForm::WidthAndHeight) => {
                    fields.extend([("width".to_owned(), width.into()), ("height".to_owned(), height.into())]);
                    return Ok(());
                }
                (Some(Size::Pixels { .. }), _) => value,
                _ => return Err(self.unsupported(name, "the server reads sizes in pixels only, such as 1024x1024")),
            },
            ("aspect_ratio" | "resolution", SizeForm::WidthAndHeight | SizeForm::Pixels) => {
                return Err(self.unsupported(name, "the server reads sizes in pixels only; set `size`"));
            }
            ("response_format", _) => match self.response_format(options.response_format) {
                Some(format) => format.into(),
                None => return Ok(()),
            },
            ("output_format", _) => {
                if let Some(format) = options.output_format.filter(|it| !self.parameters.output_formats.contains(it)) {
                    return Err(self.unsupported_format(format));
                }
                value
            }
            ("n", _) => match (options.n, self.preset.max_n) {
                (Some(n), Some(max)) if n > max => {
                    return Err(self.unsupported(name, &format!("the server generates at most {max} per request")));
                }
                _ => value,
            },
            _ => value,
        };
        fields.insert(wire_name.to_owned(), value);
        Ok(())
    }

    fn response_format(&self, requested: Option<ResponseFormat>) -> Option<&'static str> {
        match requested? {
            ResponseFormat::Url => self.preset.response_format.url,
            ResponseFormat::B64Json => self.preset.response_format.b64_json,
        }
    }

    /// Adds the extra parameters: to the JSON in the prompt if the server reads its own parameters there.
    fn add_extra(&self, fields: &mut Fields, in_prompt: &mut Fields, extra: Fields) -> Result<(), Error> {
        let reads_prompt = matches!(self.parameters.seed, Control::ExtraArgs(_));
        for (name, value) in extra {
            if !self.allowed_extra.contains(&&*name) {
                check_extra(&name, &self.reserved)?;
            }
            let is_control = |control: &Control| match control {
                Control::Field(field) => *field == name,
                Control::ExtraArgs([first, ..]) => *first == name && in_prompt.contains_key(&name),
                _ => false,
            };
            let Parameters { seed, steps, guidance, negative_prompt, strength, .. } = self.parameters;
            if [seed, steps, guidance, negative_prompt, strength].into_iter().any(is_control) {
                return Err(has_setter(&name));
            }
            if reads_prompt { &mut *in_prompt } else { &mut *fields }.insert(name, value);
        }
        Ok(())
    }

    /// Rejects a prompt that the server would not read as text only.
    fn checked_prompt(&self, prompt: String) -> Result<String, Error> {
        let invalid = |problem: &str| {
            let message = format!("`prompt` contains {problem}");
            Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("prompt"))
        };
        let name = self.preset.name;
        if matches!(self.parameters.seed, Control::ExtraArgs(_)) && prompt.contains(EXTRA_ARGS[0]) {
            return invalid(&format!("{}, which {name} reads as parameters; use `.extra(..)`", EXTRA_ARGS[0]));
        }
        if matches!(self.parameters.negative_prompt, Control::AfterBar) && prompt.contains('|') {
            return invalid(&format!("`|`, after which {name} reads the negative prompt; use `.negative_prompt(..)`"));
        }
        Ok(prompt)
    }

    fn unsupported_format(&self, format: OutputFormat) -> Error {
        let supported: Vec<_> = self.parameters.output_formats.iter().copied().map(<&str>::from).collect();
        let formats = if supported.is_empty() { "its own format".to_owned() } else { supported.join(", ") };
        let reason = format!("it is {}, but the server writes {formats}", <&str>::from(format));
        self.unsupported("output_format", &reason)
    }

    /// Returns the error for a parameter that the server does not support.
    pub(crate) fn unsupported(&self, parameter: &str, reason: &str) -> Error {
        unsupported(self.preset, parameter, reason)
    }
}

/// Returns the error for a parameter that the server does not support.
pub(crate) fn unsupported(preset: &Preset, parameter: &str, reason: &str) -> Error {
    let message = format!("{} does not support `{parameter}` here: {reason}; change or remove it", preset.name);
    Error::new(ErrorKind::Unsupported, message).with_parameter(parameter)
}

/// Inserts a value at a path of nested objects.
fn insert(object: &mut Fields, path: &[&str], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        object.insert((*first).to_owned(), value);
    } else if let Value::Object(inner) = object.entry(*first).or_insert_with(|| Fields::new().into()) {
        insert(inner, rest, value);
    }
}

/// Rejects an extra parameter that has a typed setter, under its name in a spec or one of the `reserved` names of the service.
/// If a parameter were sent twice, it would be undefined which value the service uses.
pub(crate) fn check_extra(name: &str, reserved: &[&str]) -> Result<(), Error> {
    check::check_extra(name)?;
    if reserved.contains(&name) { Err(has_setter(name)) } else { Ok(()) }
}

fn has_setter(name: &str) -> Error {
    let message = format!("`{name}` has a typed setter and cannot be an extra parameter; use the setter");
    Error::new(ErrorKind::InvalidRequest, message).with_parameter(name)
}

/// Rejects the null that stands for a number that is not finite.
pub(crate) fn finite(name: &str, value: Value) -> Result<Value, Error> {
    match value {
        Value::Null => {
            Err(Error::new(ErrorKind::InvalidRequest, format!("`{name}` is not a finite number")).with_parameter(name))
        }
        value => Ok(value),
    }
}
