//! The run-time twin of the builders: the same rules, from the same schema.

use std::borrow::Cow;

use serde_json::Value;

use super::{Kind, Mode, Parameter, Presence, Rule, Schema, Violation};
use crate::backend::{EditSpec, GenerateSpec, Options};
use crate::images::{AspectRatio, Resolution, Sampling, Size};

impl Schema {
    /// Whether the model takes `spec`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check_generate(&self, spec: &GenerateSpec) -> Result<(), Violation> {
        let GenerateSpec { model, prompt, options } = spec;
        // Most requests are a prompt and nothing else, and need not be held against every rule. (It has no more characters
        // than bytes.)
        let short = self.plain_prompt.is_some_and(|longest| prompt.len() <= longest);
        if short && options.is_empty() && model == self.id && !is_blank(prompt) {
            return Ok(());
        }
        self.check_every_rule(spec)
    }

    #[inline(never)]
    fn check_every_rule(&self, spec: &GenerateSpec) -> Result<(), Violation> {
        let GenerateSpec { model, prompt, options } = spec;
        let prompt = (!prompt.is_empty()).then_some(&**prompt);
        let given = Given::new(self, Mode::TextToImage, options, prompt, false, false);
        given.check(model, options)
    }

    /// Whether the model takes `spec`.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check_edit(&self, spec: &EditSpec) -> Result<(), Violation> {
        let EditSpec { model, images, mask, prompt, options } = spec;
        let (image, mask) = (!images.is_empty(), mask.is_some());
        let given = Given::new(self, Mode::ImageEdit, options, prompt.as_deref(), image, mask);
        given.check(model, options)
    }

    /// Whether the parameter `name` takes `value`, whatever else the request says.
    ///
    /// # Errors
    /// The rule that `value` breaks.
    pub fn check(&self, name: &str, value: &Value) -> Result<(), Violation> {
        match self.parameter(name) {
            Some(parameter) => check_value(self, parameter, &Field::Json(Cow::Borrowed(value))),
            None => Err(unknown(self, name)),
        }
    }
}

/// What a request gives, under the names on the wire: few fields, so that a list is the fastest map.
struct Given<'a> {
    schema: &'a Schema,
    mode: Mode,
    fields: Vec<(&'a str, Field<'a>)>,
}

/// The value of a parameter.
enum Field<'a> {
    File,
    Text(&'a str),
    Json(Cow<'a, Value>),
}

impl Field<'_> {
    fn of(value: impl Into<Value>) -> Self {
        Self::Json(Cow::Owned(value.into()))
    }

    /// The decimal that was written: widening 0.1f32 would give 0.10000000149.
    fn decimal(value: f32) -> Self {
        Self::of(value.to_string().parse::<f64>().map_or(Value::Null, Value::from))
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::File => None,
            Self::Text(text) => Some(text),
            Self::Json(value) => value.as_str(),
        }
    }

    fn json(&self) -> &Value {
        match self {
            Self::File | Self::Text(_) => &Value::Null,
            Self::Json(value) => value,
        }
    }
}

impl<'a> Given<'a> {
    /// No `..`: a field that is added to a spec must be checked.
    fn new(
        schema: &'a Schema,
        mode: Mode,
        options: &'a Options,
        prompt: Option<&'a str>,
        image: bool,
        mask: bool,
    ) -> Self {
        let Options {
            provider: _,
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
        let Sampling { seed, steps, guidance, negative_prompt, strength, skip_layer_guidance: _ } = sampling;
        let mut given = Self { schema, mode, fields: Vec::with_capacity(4) };
        given.give("size", size, |size| Field::of(size.to_string()));
        given.give("aspect_ratio", aspect_ratio, |ratio| Field::of(ratio.to_string()));
        given.give("resolution", resolution, |resolution| Field::of(resolution.to_string()));
        given.give("response_format", response_format, |format| Field::Text((*format).into()));
        given.give("output_format", output_format, |format| Field::Text((*format).into()));
        given.give("output_compression", output_compression, |compression| Field::of(*compression));
        given.give("n", n, |n| Field::of(*n));
        given.give("user", user, |user| Field::Text(user));
        given.give("seed", seed, |seed| Field::of(*seed));
        given.give("num_inference_steps", steps, |steps| Field::of(*steps));
        given.give("guidance_scale", guidance, |guidance| Field::decimal(*guidance));
        given.give("negative_prompt", negative_prompt, |prompt| Field::Text(prompt));
        given.give("strength", strength, |strength| Field::decimal(*strength));
        let files = [("image", image), ("mask", mask)].into_iter().filter(|(_, given)| *given);
        given.fields.extend(prompt.map(|prompt| ("prompt", Field::Text(prompt))));
        given.fields.extend(files.map(|(name, _)| (name, Field::File)));
        given.fields.extend(extra.iter().map(|(name, value)| (name.as_str(), Field::Json(Cow::Borrowed(value)))));
        given
    }

    /// Most requests give few of their fields, so what is done with one that is given stays out of the way.
    #[inline(always)]
    fn give<T>(&mut self, name: &'a str, value: &'a Option<T>, field: impl Fn(&'a T) -> Field<'a>) {
        #[cold]
        #[inline(never)]
        fn push<'a, T>(given: &mut Given<'a>, name: &'a str, value: &'a T, field: impl Fn(&'a T) -> Field<'a>) {
            given.fields.push((name, field(value)));
        }
        if let Some(value) = value {
            push(self, name, value, field);
        }
    }

    fn check(&self, model: &str, options: &Options) -> Result<(), Violation> {
        let Self { schema, mode, fields } = self;
        if model != schema.id {
            let message = format!("the request names the model `{model}`, but is sent to `{}`", schema.id);
            return Err(Violation::new("model", Rule::Model, message));
        }
        if !schema.modes.contains(mode) {
            let message = format!("{} does not offer {}; choose another model", schema.name, mode.words());
            return Err(Violation::new("model", Rule::Mode, message));
        }
        check_provider(schema, *mode, options.provider.as_deref())?;
        check_sampling(*mode, &options.sampling)?;
        options.extra.keys().try_for_each(|name| check_extra(name))?;
        let foreign = |name: &str| schema.parameter(name).is_none() && FIELDS.contains(&name);
        if let Some((name, _)) = fields.iter().find(|(name, _)| foreign(name)) {
            return Err(unknown(schema, name));
        }
        schema.parameters.iter().try_for_each(|parameter| self.check_parameter(parameter))
    }

    fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|(given, _)| *given == name).map(|(_, field)| field)
    }

    /// What counts in a rule between parameters: those that the schema names.
    fn counted(&self, name: &str) -> Option<&Field<'a>> {
        self.field(name).filter(|_| self.schema.parameter(name).is_some())
    }

    fn check_parameter(&self, parameter: &Parameter) -> Result<(), Violation> {
        let (name, mode) = (parameter.name, self.mode.words());
        let field = match (self.field(name), parameter.presence(self.mode)) {
            (None, Presence::Required) => {
                let message = format!("`{name}` is missing: {} needs it for {mode}", self.schema.name);
                return Err(Violation::new(name, Rule::Required, message));
            }
            (None, Presence::Optional | Presence::Absent) => return Ok(()),
            (Some(field), Presence::Required) if field.text().is_some_and(is_blank) => {
                let message = format!("`{name}` is blank: {} needs it for {mode}", self.schema.name);
                return Err(Violation::new(name, Rule::Required, message));
            }
            (Some(_), Presence::Absent) => {
                let message = format!("`{name}` is no parameter of {mode} with {}; leave it out", self.schema.name);
                return Err(Violation::new(name, Rule::Mode, message));
            }
            (Some(field), Presence::Required | Presence::Optional) => field,
        };
        if !matches!(field, Field::File) {
            check_value(self.schema, parameter, field)?;
        }
        if let Some(other) = parameter.overrides.iter().find(|other| self.counted(other).is_some()) {
            let message = format!("`{name}` cannot be combined with `{other}`; drop one of the two");
            return Err(Violation::new(name, Rule::Exclusive, message));
        }
        for requirement in parameter.requires {
            let other = self.counted(requirement.parameter);
            if !other.is_some_and(|other| other.text().is_some_and(|text| requirement.values.contains(&text))) {
                let (needed, values) = (requirement.parameter, words(requirement.values));
                let message = format!("`{name}` needs `{needed}` to be {values}; set it, or leave `{name}` out");
                return Err(Violation::new(name, Rule::Requires, message));
            }
        }
        Ok(())
    }
}

fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// The names that have a field of their own in a spec.
const FIELDS: [&str; 11] = [
    "model",
    "size",
    "aspect_ratio",
    "resolution",
    "response_format",
    "output_format",
    "output_compression",
    "n",
    "prompt",
    "image",
    "mask",
];

/// The fields of a spec that a model's schema need not name.
const SHARED: [&str; 6] = ["user", "seed", "num_inference_steps", "guidance_scale", "negative_prompt", "strength"];

fn check_provider(schema: &Schema, mode: Mode, slug: Option<&str>) -> Result<(), Violation> {
    let Some(slug) = slug else { return Ok(()) };
    let able = |provider: &&super::Provider| provider.modes.contains(&mode);
    if schema.providers.iter().filter(able).any(|provider| provider.slug == slug) {
        return Ok(());
    }
    let others: Vec<&str> = schema.providers.iter().filter(able).map(|provider| provider.slug).collect();
    let message = format!(
        "`provider` {slug} does not offer {} with {}; pin {} or none",
        mode.words(),
        schema.name,
        words(&others)
    );
    Err(Violation::new("provider", Rule::Provider, message))
}

/// The rules of the sampling controls, which hold for every model.
pub(crate) fn check_sampling(mode: Mode, sampling: &Sampling) -> Result<(), Violation> {
    let Sampling { seed: _, steps, guidance, negative_prompt: _, strength, skip_layer_guidance } = sampling;
    let wrong = |name: &str, rule, message: String| Err(Violation::new(name, rule, message));
    if *steps == Some(0) {
        return wrong("steps", Rule::Range, "`steps` is 0; give at least 1".into());
    }
    if let Some(guidance) = guidance
        && !(guidance.is_finite() && *guidance >= 0.0)
    {
        let message = format!("`guidance` is {guidance}; give a number of 0 or more (1 turns guidance off)");
        return wrong("guidance", Rule::Range, message);
    }
    if let Some(strength) = strength {
        if mode == Mode::TextToImage {
            return wrong("strength", Rule::Mode, "`strength` is for an image edit only; leave it out".into());
        }
        if !(*strength > 0.0 && *strength <= 1.0) {
            let message = format!("`strength` is {strength}; give a number above 0, up to 1");
            return wrong("strength", Rule::Range, message);
        }
    }
    if let Some(skip) = skip_layer_guidance {
        let share = |value: f32| (0.0..=1.0).contains(&value);
        if !(skip.scale.is_finite() && share(skip.start) && share(skip.stop) && skip.start <= skip.stop) {
            let message = "`skip_layer_guidance` needs a finite scale, and 0 <= start <= stop <= 1";
            return wrong("skip_layer_guidance", Rule::Range, message.into());
        }
    }
    Ok(())
}

pub(crate) fn check_extra(name: &str) -> Result<(), Violation> {
    if FIELDS.contains(&name) || SHARED.contains(&name) {
        let message = format!("`{name}` is in `extra`, but has a setter of its own; use that");
        return Err(Violation::new(name, Rule::Extra, message));
    }
    Ok(())
}

fn check_value(schema: &Schema, parameter: &Parameter, field: &Field) -> Result<(), Violation> {
    let name = parameter.name;
    let wrong = |rule, problem: String| Err(Violation::new(name, rule, format!("`{name}` {problem}")));
    let value = field.json();
    let text = || field.text().ok_or_else(|| of_type(name, "text"));
    let layout = |parsed: bool, form: &str| match parsed {
        true => Ok(()),
        false => wrong(Rule::Format, format!("is malformed; write it as {form}")),
    };
    match parameter.kind {
        Kind::Text { max_length } => {
            let length = text()?.chars().count();
            match max_length {
                Some(max) if length > max => {
                    wrong(Rule::Length, format!("has {length} characters; shorten it to at most {max}"))
                }
                _ => Ok(()),
            }
        }
        Kind::Choice(choices) => match text()? {
            choice if choices.contains(&choice) => Ok(()),
            choice => wrong(Rule::Choice, format!("is {choice:?}; give {}", words(choices))),
        },
        Kind::AspectRatio => layout(AspectRatio::parse(text()?).is_ok(), "\"16:9\""),
        Kind::Resolution => layout(Resolution::parse(text()?).is_ok(), "\"1K\""),
        Kind::Size => match (Size::parse(text()?), schema.max_size) {
            (Err(_), _) => layout(false, "\"1024x1024\", with no side of 0, or \"16:9\""),
            (Ok(Size::Pixels { width, height }), Some((w, h))) if width > w || height > h => {
                wrong(Rule::MaxSize, format!("{width}x{height} is too large; {} makes at most {w}x{h}", schema.name))
            }
            (Ok(_), _) => Ok(()),
        },
        Kind::Integer { minimum, maximum } => {
            let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
            match number.ok_or_else(|| of_type(name, "a whole number"))? {
                number if number < minimum || number > maximum => {
                    wrong(Rule::Range, format!("is {number}; give {minimum} to {maximum}"))
                }
                _ => Ok(()),
            }
        }
        Kind::Number { minimum, maximum } => match value.as_f64().ok_or_else(|| of_type(name, "a number"))? {
            number if number >= minimum && number <= maximum => Ok(()),
            number => wrong(Rule::Range, format!("is {number}; give {minimum} to {maximum}")),
        },
        Kind::Boolean => value.as_bool().map(|_| ()).ok_or_else(|| of_type(name, "true or false")),
        Kind::File { .. } => Err(of_type(name, "a file")),
    }
}

fn of_type(name: &str, expected: &str) -> Violation {
    Violation::new(name, Rule::Type, format!("`{name}` is of the wrong type; give {expected}"))
}

fn unknown(schema: &Schema, name: &str) -> Violation {
    let message = format!("{} has no parameter `{name}`; leave it out", schema.name);
    Violation::new(name, Rule::Unknown, message)
}

/// `a, b or c`.
fn words(words: &[&str]) -> String {
    match words {
        [] => "none".into(),
        [one] => (*one).into(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
