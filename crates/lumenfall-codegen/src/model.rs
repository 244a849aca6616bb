//! A validated schema, in the form that the code generator uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::names;
use crate::schema::{Format, MaxResolution, Mode, Need, Parameter as Raw, Provider, Schema, Type};

pub(crate) struct Model {
    /// The schema in JSON, without white space.
    pub json: String,
    pub id: String,
    pub name: String,
    pub creator: Option<String>,
    pub type_name: String,
    pub modes: Vec<Mode>,
    pub max_size: Option<MaxResolution>,
    pub providers: Vec<Provider>,
    pub parameters: Vec<Parameter>,
}

impl Model {
    pub(crate) fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Returns the parameters that are arguments of `generate` or `edit`.
    pub(crate) fn required(&self, mode: Mode) -> impl Iterator<Item = &Parameter> {
        // The order does not depend on that of the schema, so that a reordered schema generates the same methods.
        let rank = |parameter: &&Parameter| match parameter.slot {
            Slot::Image => (0, String::new()),
            Slot::Prompt => (1, String::new()),
            _ => (2, parameter.name.clone()),
        };
        let mut required: Vec<_> =
            self.parameters.iter().filter(|parameter| parameter.need(mode) == Some(Need::Required)).collect();
        required.sort_by_key(rank);
        required.into_iter()
    }

    /// Returns the names of the parameters that `mode` does not have. Every model has `strength` for edits.
    pub(crate) fn absent(&self, mode: Mode) -> impl Iterator<Item = &str> {
        let absent = self.parameters.iter().filter(move |parameter| parameter.need(mode).is_none());
        let strength = (mode == Mode::TextToImage && self.parameter("strength").is_none()).then_some("strength");
        absent.map(|parameter| parameter.name.as_str()).chain(strength)
    }

    /// Returns the parameters that override `name`.
    pub(crate) fn overriders(&self, name: &str) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(move |parameter| parameter.overrides.iter().any(|other| other == name))
    }

    /// Returns the parameters that the builder tracks in its type: those that override others, and those that others
    /// require.
    pub(crate) fn tracked(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|parameter| {
            let requires = |other: &Parameter| other.requires.iter().any(|(name, _)| *name == parameter.name);
            !parameter.overrides.is_empty() || self.parameters.iter().any(requires)
        })
    }
}

pub(crate) struct Parameter {
    pub name: String,
    pub description: String,
    pub kind: Kind,
    pub slot: Slot,
    pub modes: BTreeMap<Mode, Need>,
    pub overrides: Vec<String>,
    pub requires: Vec<(String, Vec<String>)>,
    pub default: Option<String>,
    pub media_types: Vec<String>,
}

impl Parameter {
    pub(crate) fn need(&self, mode: Mode) -> Option<Need> {
        self.modes.get(&mode).copied()
    }

    pub(crate) fn is_required(&self) -> bool {
        self.modes.values().any(|need| *need == Need::Required)
    }
}

pub(crate) enum Kind {
    Text { max_length: Option<usize> },
    Choice(Vec<String>),
    Size,
    AspectRatio,
    Resolution,
    Integer { minimum: i128, maximum: i128, rust: &'static str },
    Number { minimum: f64, maximum: f64 },
    Boolean,
    File { repeatable: bool },
}

/// The field of the plain-data request that stores a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Prompt,
    Image,
    Mask,
    Option(&'static str),
    Sampling(&'static str),
    Extra,
}

/// Validates `schema`, which was parsed from `json`.
pub(crate) fn check(schema: Schema, json: &serde_json::Value) -> Result<Model, String> {
    check_texts("", json)?;
    let json = json.to_string();
    let (id, type_name) = (&schema.id, names::type_name(&schema.id));
    if type_name.is_empty() || syn::parse_str::<syn::Ident>(&names::snake(id)).is_err() {
        return Err(format!("`id` is {id:?}; use letters, digits and hyphens, so that it maps to a Rust name"));
    }
    if ["Requests", "Builder", "Generate", "Edit"].contains(&type_name.as_str()) {
        return Err(format!("`id` is {id:?}; choose another, because the generated code has a type `{type_name}`"));
    }
    if schema.modes.is_empty() {
        return Err("`modes` is empty; list `text_to_image`, `image_edit` or both".into());
    }
    unique("mode", schema.modes.iter().map(|mode| mode.names().key.to_string()))?;
    if schema.max_resolution.is_some_and(|max| max.width == 0 || max.height == 0) {
        return Err("`max_resolution` has a side of 0; write a width and a height of at least 1".into());
    }
    for provider in &schema.providers {
        let slug = &provider.slug;
        if !names::is_snake(&slug.replace('-', "_")) {
            return Err(format!("provider {slug:?}: use lower-case letters, digits and hyphens in its slug"));
        }
        if provider.price.as_ref().is_some_and(|price| price.usd < 0.0) {
            return Err(format!("provider `{slug}`: its price is negative"));
        }
        if let Some(mode) = provider.modes.iter().find(|mode| !schema.modes.contains(mode)) {
            let mode = mode.names().key;
            return Err(format!("provider `{slug}`: the `modes` of the model do not contain its mode `{mode}`"));
        }
    }
    unique("provider", schema.providers.iter().map(|provider| names::camel(&provider.slug)))?;
    unique("parameter", schema.parameters.iter().map(|parameter| names::camel(&parameter.name)))?;

    let mut parameters = Vec::new();
    for (index, raw) in schema.parameters.into_iter().enumerate() {
        let name = raw.name.clone();
        parameters.push(
            parameter(raw, &schema.modes)
                .map_err(|problem| format!("parameters[{index}]: parameter `{name}`: {problem}"))?,
        );
    }
    let model = Model {
        json,
        id: schema.id,
        name: schema.name,
        creator: schema.creator,
        type_name,
        modes: schema.modes,
        max_size: schema.max_resolution,
        providers: schema.providers,
        parameters,
    };
    for (index, parameter) in model.parameters.iter().enumerate() {
        relations(&model, parameter)
            .map_err(|problem| format!("parameters[{index}]: parameter `{}`: {problem}", parameter.name))?;
    }
    check_cycles(&model)?;
    Ok(model)
}

fn parameter(raw: Raw, modes: &[Mode]) -> Result<Parameter, String> {
    // `syn` does not know the keywords that only newer editions have.
    if !names::is_snake(&raw.name) || raw.name == "gen" || syn::parse_str::<syn::Ident>(&raw.name).is_err() {
        return Err("the name is not a valid method name; write it in snake_case and do not use a Rust keyword".into());
    }
    if is_reserved(&raw.name) {
        return Err("the generated code has a method or module with this name; choose another name".into());
    }
    if raw.modes.is_empty() {
        return Err("`modes` is empty; list each mode in which the parameter is `required` or `optional`".into());
    }
    if let Some(mode) = raw.modes.keys().find(|mode| !modes.contains(mode)) {
        return Err(format!("the `modes` of the model do not contain `{}`", mode.names().key));
    }
    let kind = kind(&raw)?;
    let slot = slot(&raw.name, &kind)?;
    if slot == Slot::Image || slot == Slot::Mask {
        if raw.modes.contains_key(&Mode::TextToImage) {
            return Err("a request in the mode `text_to_image` cannot contain files; remove this mode".into());
        }
        if slot == Slot::Image && raw.modes.get(&Mode::ImageEdit) != Some(&Need::Required) {
            return Err("it must be `required` in the mode `image_edit`".into());
        }
    }
    if raw.name == "response_format" && modes.iter().any(|mode| raw.modes.get(mode) != Some(&Need::Optional)) {
        return Err("it selects the type of the result, so it must be `optional` in every mode of the model".into());
    }
    let default = raw.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), Into::into));
    if let Some(value) = &raw.default {
        check_default(&kind, value)?;
    }
    Ok(Parameter {
        modes: raw.modes,
        name: raw.name,
        description: raw.description,
        kind,
        slot,
        overrides: raw.overrides,
        requires: raw.requires.into_iter().collect(),
        default,
        media_types: raw.media_types,
    })
}

/// Checks that a request could set the parameter to its default value.
fn check_default(kind: &Kind, value: &serde_json::Value) -> Result<(), String> {
    let expected = match kind {
        Kind::Text { max_length } => {
            let fits = |text: &str| max_length.is_none_or(|max| text.chars().count() <= max);
            (!value.as_str().is_some_and(fits)).then(|| match max_length {
                Some(max) => format!("text of at most {max} characters"),
                None => "text".into(),
            })
        }
        Kind::Choice(choices) => {
            let is_choice = value.as_str().is_some_and(|text| choices.iter().any(|choice| choice == text));
            (!is_choice).then(|| "a value of `enum`".into())
        }
        Kind::Integer { minimum, maximum, .. } => {
            let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
            (!number.is_some_and(|number| (*minimum..=*maximum).contains(&number)))
                .then(|| format!("a whole number from {minimum} to {maximum}"))
        }
        Kind::Number { minimum, maximum } => {
            (!value.as_f64().is_some_and(|number| (*minimum..=*maximum).contains(&number)))
                .then(|| format!("a number from {minimum} to {maximum}"))
        }
        Kind::Boolean => (!value.is_boolean()).then(|| "true or false".into()),
        Kind::Size => (!is_pair(value, &['x', ':'])).then(|| "a size such as \"1024x1024\" or \"16:9\"".into()),
        Kind::AspectRatio => (!is_pair(value, &[':'])).then(|| "a ratio such as \"16:9\"".into()),
        Kind::Resolution => {
            let digits = value.as_str().and_then(|text| text.strip_suffix('K'));
            (!digits.is_some_and(is_positive)).then(|| "a tier such as \"1K\"".into())
        }
        Kind::File { .. } => Some("removed, because a file has none".to_owned()),
    };
    expected.map_or(Ok(()), |expected| Err(format!("its default is {value}; it must be {expected}")))
}

/// Returns whether the value is text with two positive numbers and one of the separators between them.
fn is_pair(value: &serde_json::Value, separators: &[char]) -> bool {
    let pair = value.as_str().and_then(|text| text.split_once(separators));
    pair.is_some_and(|(first, second)| is_positive(first) && is_positive(second))
}

fn is_positive(digits: &str) -> bool {
    digits.bytes().all(|digit| digit.is_ascii_digit()) && digits.parse::<u32>().is_ok_and(|number| number > 0)
}

/// Rejects control characters and those that change the direction of text. The compiler rejects some of them in comments
/// and literals, and they hide what a text says.
fn check_text(path: &str, text: &str) -> Result<(), String> {
    let is_bidirectional =
        |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}' | '\u{061C}');
    match text.chars().find(|c| is_bidirectional(*c) || (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))) {
        Some(c) => Err(format!("`{path}` contains the character {c:?}; remove it")),
        None => Ok(()),
    }
}

/// Checks all texts of the schema.
fn check_texts(path: &str, value: &serde_json::Value) -> Result<(), String> {
    match value {
        serde_json::Value::String(text) => check_text(path, text),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| check_texts(&format!("{path}[{index}]"), item))
        }
        serde_json::Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            let path = if path.is_empty() {
                name.escape_default().to_string()
            } else {
                format!("{path}.{}", name.escape_default())
            };
            check_text(&path, name)?;
            check_texts(&path, field)
        }),
        _ => Ok(()),
    }
}

/// Rejects a parameter that requires itself through others, because no request could set it first.
fn check_cycles(model: &Model) -> Result<(), String> {
    for (index, parameter) in model.parameters.iter().enumerate() {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = parameter.requires.iter().map(|(other, _)| other.as_str()).collect();
        while let Some(name) = open.pop() {
            if name == parameter.name {
                let name = &parameter.name;
                return Err(format!(
                    "parameters[{index}].requires: parameter `{name}`: it requires itself through others"
                ));
            }
            if reached.insert(name) {
                let further = model.parameter(name).into_iter().flat_map(|other| &other.requires);
                open.extend(further.map(|(other, _)| other.as_str()));
            }
        }
    }
    Ok(())
}

/// Returns whether the generated code uses `name` for a method or module.
fn is_reserved(name: &str) -> bool {
    let is_module = matches!(name, "model" | "parameters" | "providers" | "rules" | "typed");
    let is_setter = matches!(name, "extra" | "hosted" | "inline" | "pin" | "sampling" | "timeout");
    let is_call = matches!(name, "cancel_with" | "estimate" | "header" | "into_draft" | "retry" | "send");
    is_module || is_setter || is_call || name.starts_with("on_") || name.starts_with("try_")
}

fn kind(raw: &Raw) -> Result<Kind, String> {
    let only = |key: &str, given: bool, kinds: &str| match given {
        true => Err(format!("`{key}` is allowed for {kinds} only")),
        false => Ok(()),
    };
    let numeric = matches!(raw.kind, Type::Integer | Type::Number);
    only("minimum", raw.minimum.is_some() && !numeric, "numbers")?;
    only("maximum", raw.maximum.is_some() && !numeric, "numbers")?;
    only("enum", raw.choices.is_some() && raw.kind != Type::String, "strings")?;
    only("format", raw.format.is_some() && raw.kind != Type::String, "strings")?;
    only("max_length", raw.max_length.is_some() && raw.kind != Type::String, "strings")?;
    only("repeatable", raw.repeatable && raw.kind != Type::File, "files")?;
    only("media_types", !raw.media_types.is_empty() && raw.kind != Type::File, "files")?;
    match raw.kind {
        Type::String => match (&raw.choices, raw.format) {
            (Some(_), Some(_)) => Err("`enum` and `format` cannot be combined".into()),
            (Some(choices), None) => choice(choices),
            (None, Some(_)) if raw.max_length.is_some() => Err("`format` and `max_length` cannot be combined".into()),
            (None, Some(Format::Size)) => Ok(Kind::Size),
            (None, Some(Format::AspectRatio)) => Ok(Kind::AspectRatio),
            (None, Some(Format::ResolutionTier)) => Ok(Kind::Resolution),
            (None, None) => Ok(Kind::Text { max_length: raw.max_length }),
        },
        Type::Integer => integer(raw),
        Type::Number => number(raw),
        Type::Boolean => Ok(Kind::Boolean),
        Type::File => Ok(Kind::File { repeatable: raw.repeatable }),
    }
}

fn choice(choices: &[String]) -> Result<Kind, String> {
    if choices.is_empty() {
        return Err("`enum` is empty; list at least one value".into());
    }
    let type_names = choices.iter().map(|choice| names::type_name(choice));
    if type_names.clone().any(|name| name.is_empty() || name == "Value") {
        return Err("`enum` has a value that does not map to a Rust type name; use letters and digits".into());
    }
    unique("value of `enum`", type_names)?;
    Ok(Kind::Choice(choices.to_vec()))
}

fn integer(raw: &Raw) -> Result<Kind, String> {
    let (rust, low, high) = match raw.name.as_str() {
        "n" | "output_compression" | "num_inference_steps" | "steps" => ("u32", 0, u32::MAX.into()),
        "seed" => ("u64", 0, u64::MAX.into()),
        _ => {
            let fits = |bound: &Option<serde_json::Number>| {
                bound.as_ref().and_then(serde_json::Number::as_u64).is_some_and(|bound| u32::try_from(bound).is_ok())
            };
            match fits(&raw.minimum) && fits(&raw.maximum) {
                true => ("u32", 0, u32::MAX.into()),
                false => ("i64", i64::MIN.into(), i64::MAX.into()),
            }
        }
    };
    let bound = |given: &Option<serde_json::Number>, otherwise: i128| match given {
        None => Ok(otherwise),
        Some(number) => number.as_i128().ok_or_else(|| format!("the bound {number} is not a whole number")),
    };
    let (minimum, maximum) = (bound(&raw.minimum, low)?, bound(&raw.maximum, high)?);
    if minimum > maximum {
        return Err(format!("`minimum` {minimum} is greater than `maximum` {maximum}"));
    }
    if minimum < low || maximum > high {
        return Err(format!("the range {minimum} to {maximum} does not fit into {rust}"));
    }
    Ok(Kind::Integer { minimum, maximum, rust })
}

fn number(raw: &Raw) -> Result<Kind, String> {
    let bound = |given: &Option<serde_json::Number>, otherwise| match given {
        None => Ok(otherwise),
        Some(number) => number.as_f64().ok_or_else(|| format!("the bound {number} is too large")),
    };
    let (minimum, maximum) = (bound(&raw.minimum, f64::MIN)?, bound(&raw.maximum, f64::MAX)?);
    if minimum > maximum {
        return Err(format!("`minimum` {minimum} is greater than `maximum` {maximum}"));
    }
    Ok(Kind::Number { minimum, maximum })
}

/// Returns the field that stores the parameter. The parameter must have the type of that field.
fn slot(name: &str, kind: &Kind) -> Result<Slot, String> {
    let (slot, expected, fits) = match name {
        "prompt" => (Slot::Prompt, "a string", matches!(kind, Kind::Text { .. })),
        "image" => (Slot::Image, "a file", matches!(kind, Kind::File { .. })),
        "mask" => (Slot::Mask, "a file, not repeatable", matches!(kind, Kind::File { repeatable: false })),
        "size" => (Slot::Option("size"), "a string of format `size`", matches!(kind, Kind::Size)),
        "aspect_ratio" => {
            (Slot::Option("aspect_ratio"), "a string of format `aspect_ratio`", matches!(kind, Kind::AspectRatio))
        }
        "resolution" => {
            (Slot::Option("resolution"), "a string of format `resolution_tier`", matches!(kind, Kind::Resolution))
        }
        "response_format" => {
            (Slot::Option("response_format"), "an enum of url, b64_json", only(kind, &["url", "b64_json"]))
        }
        "output_format" => {
            let known = ["png", "jpeg", "gif", "webp", "avif"];
            (Slot::Option("output_format"), "an enum of png, jpeg, gif, webp, avif", only(kind, &known))
        }
        "output_compression" => {
            (Slot::Option("output_compression"), "an integer", matches!(kind, Kind::Integer { .. }))
        }
        "n" => (Slot::Option("n"), "an integer", matches!(kind, Kind::Integer { .. })),
        "user" => (Slot::Option("user"), "a string", matches!(kind, Kind::Text { .. })),
        "seed" => (Slot::Sampling("seed"), "an integer", matches!(kind, Kind::Integer { .. })),
        "num_inference_steps" | "steps" => {
            (Slot::Sampling("steps"), "an integer", matches!(kind, Kind::Integer { .. }))
        }
        "guidance_scale" | "guidance" => (Slot::Sampling("guidance"), "a number", matches!(kind, Kind::Number { .. })),
        "strength" => (Slot::Sampling("strength"), "a number", matches!(kind, Kind::Number { .. })),
        "negative_prompt" => (Slot::Sampling("negative_prompt"), "a string", matches!(kind, Kind::Text { .. })),
        _ => (Slot::Extra, "of another type: only `image` and `mask` can be files", !matches!(kind, Kind::File { .. })),
    };
    if fits { Ok(slot) } else { Err(format!("a parameter with this name must be {expected}")) }
}

fn only(kind: &Kind, known: &[&str]) -> bool {
    matches!(kind, Kind::Choice(choices) if choices.iter().all(|choice| known.contains(&choice.as_str())))
}

fn relations(model: &Model, parameter: &Parameter) -> Result<(), String> {
    let involved = !parameter.overrides.is_empty() || !parameter.requires.is_empty();
    if involved && parameter.is_required() {
        return Err("a required parameter cannot have `overrides` or `requires`".into());
    }
    let related = |other: &str| match model.parameter(other) {
        None => Err(format!("it refers to `{other}`, which is not a parameter of the model")),
        Some(found) if found.name == parameter.name => Err("it refers to itself".to_string()),
        Some(found) if found.is_required() => Err(format!("it refers to `{other}`, which is a required parameter")),
        // Its setter selects the type of the result and does not record that it was called.
        Some(_) if other == "response_format" => Err("it cannot refer to `response_format`".into()),
        Some(found) => {
            match model.modes.iter().find(|&&mode| parameter.need(mode).is_some() && found.need(mode).is_none()) {
                Some(mode) => {
                    Err(format!("it refers to `{other}`, which the mode `{}` does not have", mode.names().key))
                }
                None => Ok(found),
            }
        }
    };
    for other in &parameter.overrides {
        if related(other)?.overrides.contains(&parameter.name) {
            return Err(format!("it and `{other}` override each other; list `overrides` for one of them only"));
        }
    }
    for (other, values) in &parameter.requires {
        let Kind::Choice(choices) = &related(other)?.kind else {
            return Err(format!("it requires `{other}`, which has no `enum`"));
        };
        if values.is_empty() {
            return Err(format!("its list of required values of `{other}` is empty"));
        }
        if let Some(value) = values.iter().find(|value| !choices.contains(value)) {
            return Err(format!(
                "it requires `{other}` to be {value:?}, which is not a value of that parameter's `enum`"
            ));
        }
        if !model.parameter(other).is_none_or(|other| other.overrides.is_empty()) {
            return Err(format!("it requires `{other}`, but a parameter with `overrides` cannot be required"));
        }
    }
    Ok(())
}

fn unique(what: &str, names: impl Iterator<Item = String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if let Some(twice) = seen.replace(name) {
            return Err(format!("{what} `{twice}` occurs twice, or two names map to the same Rust name"));
        }
    }
    Ok(())
}
