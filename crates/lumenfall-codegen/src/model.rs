//! A validated schema, in the form that the code generator uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::problem::Problem;
use crate::schema::{Format, MaxResolution, Mode, Need, Parameter as Raw, Provider, Schema, Type};
use crate::{default, names};

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
    /// Their order does not depend on the schema's: the image, the prompt, and the others alphabetically.
    pub(crate) fn required(&self, mode: Mode) -> Vec<&Parameter> {
        let is_required = |parameter: &&Parameter| parameter.need(mode) == Some(Need::Required);
        let mut required: Vec<_> = self.parameters.iter().filter(is_required).collect();
        required.sort_by_key(|parameter| {
            let rank = match parameter.slot {
                Slot::Image => 0,
                Slot::Prompt => 1,
                _ => 2,
            };
            (rank, &parameter.name)
        });
        required
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
        self.parameters
            .iter()
            .filter(|parameter| !parameter.overrides.is_empty() || self.is_required_by_another(parameter))
    }

    /// Returns whether other parameters require certain values of `parameter`.
    pub(crate) fn is_required_by_another(&self, parameter: &Parameter) -> bool {
        self.parameters.iter().any(|other| other.requires.iter().any(|(name, _)| *name == parameter.name))
    }

    /// Returns whether each value of `parameter` has a type of its own, because the value is part of the builder's type.
    pub(crate) fn has_value_types(&self, parameter: &Parameter) -> bool {
        matches!(parameter.kind, Kind::Choice(_))
            && (parameter.slot == Slot::Option("response_format") || self.is_required_by_another(parameter))
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
pub(crate) fn check(schema: Schema, json: String) -> Result<Model, Problem> {
    let (id, type_name) = (&schema.id, names::type_name(&schema.id));
    if type_name.is_empty() || syn::parse_str::<syn::Ident>(&names::snake(id)).is_err() {
        let message = format!("`id` is {id:?}; use letters, digits and hyphens, so that it maps to a Rust name");
        return Err(Problem::at("id", message));
    }
    if ["Requests", "Builder", "Generate", "Edit"].contains(&type_name.as_str()) {
        let message = format!("`id` is {id:?}; choose another, because the generated code has a type `{type_name}`");
        return Err(Problem::at("id", message));
    }
    if schema.modes.is_empty() {
        return Err(Problem::at("modes", "`modes` is empty; list `text_to_image`, `image_edit` or both"));
    }
    unique("mode", schema.modes.iter().map(|mode| mode.names().key.to_string()))
        .map_err(|(index, message)| Problem::at(format!("modes[{index}]"), message))?;
    if schema.max_resolution.is_some_and(|max| max.width == 0 || max.height == 0) {
        let message = "`max_resolution` has a side of 0; write a width and a height of at least 1";
        return Err(Problem::at("max_resolution", message));
    }
    providers(&schema)?;
    unique("parameter", schema.parameters.iter().map(|parameter| names::camel(&parameter.name)))
        .map_err(|(index, message)| Problem::at(format!("parameters[{index}].name"), message))?;

    let mut parameters = Vec::new();
    for (index, raw) in schema.parameters.into_iter().enumerate() {
        let name = raw.name.clone();
        let parameter = parameter(raw, &schema.modes, schema.max_resolution);
        parameters.push(parameter.map_err(|problem| problem.of_parameter(index, &name))?);
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
        relations(&model, parameter).map_err(|problem| problem.of_parameter(index, &parameter.name))?;
    }
    for (index, parameter) in model.parameters.iter().enumerate() {
        no_cycle(&model, parameter).map_err(|problem| problem.of_parameter(index, &parameter.name))?;
    }
    Ok(model)
}

fn providers(schema: &Schema) -> Result<(), Problem> {
    for (index, provider) in schema.providers.iter().enumerate() {
        let (slug, path) = (&provider.slug, format!("providers[{index}]"));
        if !names::is_snake(&slug.replace('-', "_")) {
            let message = format!("provider {slug:?}: use lower-case letters, digits and hyphens in its slug");
            return Err(Problem::at(path + ".slug", message));
        }
        if provider.price.as_ref().is_some_and(|price| price.usd < 0.0) {
            return Err(Problem::at(path + ".price.usd", format!("provider `{slug}`: its price is negative")));
        }
        if let Some(at) = provider.modes.iter().position(|mode| !schema.modes.contains(mode)) {
            let message = format!("provider `{slug}`: the `modes` of the model do not contain its mode");
            return Err(Problem::at(format!("{path}.modes[{at}]"), message));
        }
    }
    unique("provider", schema.providers.iter().map(|provider| names::camel(&provider.slug)))
        .map_err(|(index, message)| Problem::at(format!("providers[{index}].slug"), message))
}

fn parameter(raw: Raw, modes: &[Mode], max_size: Option<MaxResolution>) -> Result<Parameter, Problem> {
    if !names::is_snake(&raw.name) {
        let message = "the name is not a valid method name; use lower-case letters, digits and underscores";
        return Err(Problem::at("name", message));
    }
    if names::is_path_keyword(&raw.name) {
        let message = "the name is a Rust keyword that cannot be a method name; choose another name";
        return Err(Problem::at("name", message));
    }
    if is_reserved(&raw.name) {
        let message = "the generated code has a method or module with this name; choose another name";
        return Err(Problem::at("name", message));
    }
    if raw.modes.is_empty() {
        let message = "`modes` is empty; list each mode in which the parameter is `required` or `optional`";
        return Err(Problem::at("modes", message));
    }
    if let Some(mode) = raw.modes.keys().find(|mode| !modes.contains(mode)) {
        let key = mode.names().key;
        return Err(Problem::at(format!("modes.{key}"), format!("the `modes` of the model do not contain `{key}`")));
    }
    let kind = kind(&raw)?;
    let slot = slot(&raw.name, &kind).map_err(|message| Problem::at("type", message))?;
    let is_file = slot == Slot::Image || slot == Slot::Mask;
    if is_file && raw.modes.contains_key(&Mode::TextToImage) {
        let message = "a request in the mode `text_to_image` cannot contain files; remove this mode";
        return Err(Problem::at("modes.text_to_image", message));
    }
    if raw.name == "response_format" && modes.iter().any(|mode| raw.modes.get(mode) != Some(&Need::Optional)) {
        let message = "it selects the type of the result, so it must be `optional` in every mode of the model";
        return Err(Problem::at("modes", message));
    }
    if let Some(default) = &raw.default {
        default::check(default, &kind, max_size).map_err(|message| Problem::at("default", message))?;
    }
    let default = raw.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), Into::into));
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

/// Returns whether the generated code uses `name` for a method or module.
fn is_reserved(name: &str) -> bool {
    let is_module = matches!(name, "model" | "parameters" | "providers" | "rules" | "typed");
    let is_setter = matches!(name, "extra" | "hosted" | "inline" | "pin" | "published_price" | "sampling" | "timeout");
    let is_call = matches!(name, "cancel_with" | "estimate" | "header" | "into_draft" | "retry" | "send");
    is_module || is_setter || is_call || name.starts_with("on_") || name.starts_with("try_")
}

fn kind(raw: &Raw) -> Result<Kind, Problem> {
    let only = |key: &str, given: bool, kinds: &str| match given {
        true => Err(Problem::at(key, format!("`{key}` is allowed for {kinds} only"))),
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
        Type::String => match (&raw.choices, raw.format, raw.max_length) {
            (Some(_), Some(_), _) => Err(Problem::at("format", "`enum` and `format` cannot be combined")),
            (Some(_), _, Some(_)) => Err(Problem::at("max_length", "`enum` and `max_length` cannot be combined")),
            (None, Some(_), Some(_)) => Err(Problem::at("max_length", "`format` and `max_length` cannot be combined")),
            (None, None, Some(0)) => Err(Problem::at("max_length", "`max_length` is 0; write at least 1")),
            (Some(choices), None, None) => choice(choices),
            (None, Some(Format::Size), None) => Ok(Kind::Size),
            (None, Some(Format::AspectRatio), None) => Ok(Kind::AspectRatio),
            (None, Some(Format::ResolutionTier), None) => Ok(Kind::Resolution),
            (None, None, max_length) => Ok(Kind::Text { max_length }),
        },
        Type::Integer => integer(raw),
        Type::Number => number(raw),
        Type::Boolean => Ok(Kind::Boolean),
        Type::File => Ok(Kind::File { repeatable: raw.repeatable }),
    }
}

fn choice(choices: &[String]) -> Result<Kind, Problem> {
    if choices.is_empty() {
        return Err(Problem::at("enum", "`enum` is empty; list at least one value"));
    }
    let type_names = choices.iter().map(|choice| names::type_name(choice));
    if let Some(index) = type_names.clone().position(|name| name.is_empty() || name == "Value") {
        let message = "`enum` has a value that does not map to a Rust type name; use letters and digits";
        return Err(Problem::at(format!("enum[{index}]"), message));
    }
    unique("value of `enum`", type_names).map_err(|(index, message)| Problem::at(format!("enum[{index}]"), message))?;
    Ok(Kind::Choice(choices.to_vec()))
}

fn integer(raw: &Raw) -> Result<Kind, Problem> {
    let bound = |key: &str, given: &Option<serde_json::Number>| match given {
        None => Ok(None),
        Some(number) => match number.as_i128() {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::at(key, format!("the bound {number} is not a whole number"))),
        },
    };
    let (minimum, maximum) = (bound("minimum", &raw.minimum)?, bound("maximum", &raw.maximum)?);
    let fits_u32 = minimum.is_some_and(|minimum| minimum >= 0) && maximum.is_some_and(|max| max <= u32::MAX.into());
    let (rust, low, high) = match raw.name.as_str() {
        "seed" => ("u64", 0, u64::MAX.into()),
        "n" | "output_compression" | "num_inference_steps" | "steps" => ("u32", 0, u32::MAX.into()),
        _ if fits_u32 => ("u32", 0, u32::MAX.into()),
        _ => ("i64", i64::MIN.into(), i64::MAX.into()),
    };
    let (minimum, maximum) = (minimum.unwrap_or(low), maximum.unwrap_or(high));
    if minimum > maximum {
        return Err(Problem::at("minimum", format!("`minimum` {minimum} is greater than `maximum` {maximum}")));
    }
    let message = || format!("the range {minimum} to {maximum} does not fit into {rust}");
    if minimum < low {
        return Err(Problem::at("minimum", message()));
    }
    if maximum > high {
        return Err(Problem::at("maximum", message()));
    }
    Ok(Kind::Integer { minimum, maximum, rust })
}

fn number(raw: &Raw) -> Result<Kind, Problem> {
    let bound = |key: &str, given: &Option<serde_json::Number>, otherwise| match given {
        None => Ok(otherwise),
        Some(number) => number.as_f64().ok_or_else(|| Problem::at(key, format!("the bound {number} is too large"))),
    };
    let (minimum, maximum) = (bound("minimum", &raw.minimum, f64::MIN)?, bound("maximum", &raw.maximum, f64::MAX)?);
    if minimum > maximum {
        return Err(Problem::at("minimum", format!("`minimum` {minimum} is greater than `maximum` {maximum}")));
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

fn relations(model: &Model, parameter: &Parameter) -> Result<(), Problem> {
    let key = if parameter.overrides.is_empty() { "requires" } else { "overrides" };
    let involved = !parameter.overrides.is_empty() || !parameter.requires.is_empty();
    if involved && parameter.is_required() {
        return Err(Problem::at(key, "a required parameter cannot have `overrides` or `requires`"));
    }
    let related = |other: &str| match model.parameter(other) {
        None => Err(format!("it refers to `{}`, which is not a parameter of the model", other.escape_debug())),
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
    for (index, other) in parameter.overrides.iter().enumerate() {
        let at = |message: String| Problem::at(format!("overrides[{index}]"), message);
        if related(other).map_err(at)?.overrides.contains(&parameter.name) {
            return Err(at(format!("it and `{other}` override each other; list `overrides` for one of them only")));
        }
        if parameter.overrides.iter().take(index).any(|earlier| earlier == other) {
            return Err(at(format!("it lists `{other}` twice")));
        }
        if parameter.requires.iter().any(|(required, _)| required == other) {
            return Err(at(format!("it overrides `{other}` and also requires it; remove one of the two rules")));
        }
    }
    for (other, values) in &parameter.requires {
        let path = format!("requires.{other}");
        let at = |message: String| Problem::at(path.clone(), message);
        let other_parameter = related(other).map_err(at)?;
        let Kind::Choice(choices) = &other_parameter.kind else {
            return Err(at(format!("it requires `{other}`, which has no `enum`")));
        };
        if values.is_empty() {
            return Err(at(format!("its list of required values of `{other}` is empty")));
        }
        for (index, value) in values.iter().enumerate() {
            let at = |message| Problem::at(format!("{path}[{index}]"), message);
            if !choices.contains(value) {
                return Err(at(format!(
                    "it requires `{other}` to be {value:?}, which is not a value of that parameter's `enum`"
                )));
            }
            if values.iter().take(index).any(|earlier| earlier == value) {
                return Err(at(format!("it lists the value {value:?} twice")));
            }
        }
        if !other_parameter.overrides.is_empty() {
            return Err(at(format!("it requires `{other}`, but a parameter with `overrides` cannot be required")));
        }
    }
    Ok(())
}

/// Returns an error if `parameter` requires itself through other parameters, because then it could never be set.
fn no_cycle(model: &Model, parameter: &Parameter) -> Result<(), Problem> {
    // Each path starts with the first requirement and ends with a parameter whose requirements are not yet followed.
    let mut paths: Vec<Vec<&str>> = parameter.requires.iter().map(|(name, _)| vec![name.as_str()]).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop() {
        let Some(last) = path.last().and_then(|name| model.parameter(name)) else { continue };
        if last.name == parameter.name {
            let chain: Vec<_> = path.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("it requires {}: remove one of these rules", chain.join(", which requires "));
            return Err(Problem::at(format!("requires.{}", path.first().unwrap_or(&"")), message));
        }
        if seen.insert(&last.name) {
            paths.extend(last.requires.iter().map(|(name, _)| [path.as_slice(), &[name]].concat()));
        }
    }
    Ok(())
}

/// Returns an error with the position of the first name that occurs twice.
fn unique(what: &str, names: impl Iterator<Item = String>) -> Result<(), (usize, String)> {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        if let Some(twice) = seen.replace(name) {
            let twice = twice.escape_debug();
            return Err((index, format!("{what} `{twice}` occurs twice, or two names map to the same Rust name")));
        }
    }
    Ok(())
}
