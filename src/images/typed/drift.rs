//! Where the schema that a service serves differs from the one that was compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::Schema;
use crate::error::{Error, ErrorKind};

/// A place where a served schema differs from the compiled one.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// What has changed.
    pub subject: Subject,
    /// Which of its properties, such as `maximum` or `modes.image_edit`; empty where the subject itself came or went.
    pub property: String,
    /// What was compiled; `None` where it was not there. Of a list, one element.
    pub compiled: Option<Value>,
    /// What is served; `None` where it is not there. Of a list, one element.
    pub served: Option<Value>,
}

/// A part of a schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Subject {
    /// The model itself.
    Model,
    /// The provider of this slug.
    Provider(String),
    /// The parameter of this name.
    Parameter(String),
}

impl Change {
    /// Whether the service may now refuse a call that compiles: something went, or a limit became tighter.
    pub fn is_breaking(&self) -> bool {
        let (gone, came) = (self.served.is_none(), self.compiled.is_none());
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
        let (compiled, served) = (number(&self.compiled), number(&self.served));
        let property: Vec<&str> = self.property.split('.').collect();
        match (&self.subject, property.as_slice()) {
            (_, [""]) => gone || self.served.as_ref().is_some_and(is_required),
            (Subject::Parameter(_), ["modes", _]) => {
                gone || self.served.as_ref().is_some_and(|need| need == "required")
            }
            (_, ["modes", ..] | ["repeatable"]) => gone,
            // An element of a list that stays allows what it names; a list that comes forbids all that it does not.
            (_, ["enum" | "media_types", _] | ["requires", _, _]) => gone,
            (_, ["enum" | "media_types" | "requires" | "overrides", ..]) => came,
            (_, ["maximum" | "max_length"] | ["max_resolution", ..]) => came || (!gone && served < compiled),
            (_, ["minimum"]) => came || (!gone && served > compiled),
            (_, property) => matches!(property, ["id" | "type" | "format"]),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Model => f.write_str("the model")?,
            Subject::Provider(slug) => write!(f, "provider `{slug}`")?,
            Subject::Parameter(name) => write!(f, "parameter `{name}`")?,
        }
        if !self.property.is_empty() {
            write!(f, ": `{}`", self.property)?;
        }
        match (&self.compiled, &self.served) {
            (Some(_), None) if self.property.is_empty() => f.write_str(" is no longer there"),
            (None, Some(_)) if self.property.is_empty() => f.write_str(" is new"),
            (Some(compiled), Some(served)) => write!(f, " was {compiled}, is {served}"),
            (Some(compiled), None) => write!(f, " was {compiled}, is no longer there"),
            (_, served) => write!(f, " is new: {}", served.as_ref().unwrap_or(&Value::Null)),
        }
    }
}

/// Whether a parameter that came must be given.
fn is_required(parameter: &Value) -> bool {
    let modes = parameter.get("modes").and_then(Value::as_object);
    modes.is_some_and(|modes| modes.values().any(|need| need == "required"))
}

impl Schema {
    /// Where `served`, as a service serves it, differs from this schema.
    ///
    /// Lists count as sets, and what is null, false or an empty list counts as not there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidResponse`] where `served` holds no schema of a known form.
    pub fn changes(&self, served: &Value) -> Result<Vec<Change>, Error> {
        let unreadable = |error| Error::new(ErrorKind::InvalidResponse, "the schema is no JSON").with_source(error);
        let compiled: Value = serde_json::from_str(self.json).map_err(unreadable)?;
        changes(&compiled, served)
    }
}

/// The schema within `answer`: the object that lists parameters, there or one level down.
///
/// # Errors
/// [`ErrorKind::InvalidResponse`] where there is none.
pub fn served_schema(answer: &Value) -> Result<&Value, Error> {
    let lists = |value: &&Value| value.get("parameters").is_some_and(|list| members(list).is_some());
    let within = answer.as_object().and_then(|fields| fields.values().find(lists));
    Some(answer).filter(lists).or(within).ok_or_else(|| {
        let message = "what is served holds no schema of a known form: no list `parameters`; look at it as it came";
        Error::new(ErrorKind::InvalidResponse, message)
    })
}

/// Where `served` differs from `compiled`, both in the JSON of a schema. What [`Schema::changes`] finds for a schema
/// that is compiled in.
///
/// # Errors
/// [`ErrorKind::InvalidResponse`] where either holds no schema of a known form.
pub fn changes(compiled: &Value, served: &Value) -> Result<Vec<Change>, Error> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(served_schema(compiled)?), Some(served_schema(served)?), &mut found);
    Ok(found)
}

fn compare<'a>(
    path: &mut Vec<&'a str>,
    compiled: Option<&'a Value>,
    served: Option<&'a Value>,
    found: &mut Vec<Change>,
) {
    let there = |value: &&Value| !(value.is_null() || **value == false || value.as_array().is_some_and(Vec::is_empty));
    let (compiled, served) = (compiled.filter(there), served.filter(there));
    if let (Some(before), Some(now)) = (compiled.and_then(members), served.and_then(members)) {
        let names: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
        for name in names {
            path.push(name);
            compare(path, before.get(name).copied(), now.get(name).copied(), found);
            path.pop();
        }
    } else if !same(compiled, served) {
        found.push(change(path, compiled.cloned(), served.cloned()));
    }
}

/// What a value consists of, by name: the fields of an object, the items of a list by their own names.
fn members(value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match value {
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Value::Array(items) => items.iter().map(|item| Some((name(item)?, item))).collect(),
        _ => None,
    }
}

/// What an item of a list goes by: a provider's slug, a parameter's name, a word itself.
fn name(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("slug").or_else(|| item.get("name"))?.as_str())
}

/// Equal, and numbers by their value: 1 is 1.0.
fn same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    one == other || (number(one).is_some() && number(one) == number(other))
}

fn change(path: &[&str], compiled: Option<Value>, served: Option<Value>) -> Change {
    let (subject, property) = match path {
        ["providers", slug, property @ ..] => (Subject::Provider((*slug).into()), property),
        ["parameters", name, property @ ..] => (Subject::Parameter((*name).into()), property),
        property => (Subject::Model, property),
    };
    Change { subject, property: property.join("."), compiled, served }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generated::stable_diffusion_3_5_medium::SCHEMA;

    /// The compiled schema after `edit`, compared with itself before.
    fn drift(edit: impl FnOnce(&mut Value)) -> Vec<(String, bool)> {
        let mut served: Value = serde_json::from_str(SCHEMA.json).unwrap();
        edit(&mut served);
        let changes = SCHEMA.changes(&json!({ "id": "m", "object": "model", "schema": served })).unwrap();
        changes.iter().map(|change| (change.to_string(), change.is_breaking())).collect()
    }

    fn parameter<'a>(schema: &'a mut Value, name: &str) -> &'a mut Value {
        schema["parameters"].as_array_mut().unwrap().iter_mut().find(|parameter| parameter["name"] == name).unwrap()
    }

    #[test]
    fn the_same_schema_has_not_drifted() {
        assert_eq!(drift(|_| ()), []);
        assert_eq!(drift(|schema| schema["parameters"].as_array_mut().unwrap().reverse()), []);
        assert_eq!(drift(|schema| parameter(schema, "n")["maximum"] = json!(10.0)), []);
        assert_eq!(drift(|schema| parameter(schema, "n")["overrides"] = json!([])), []);
    }

    #[test]
    fn each_change_is_named_and_its_effect_told() {
        type Case = (Vec<(String, bool)>, &'static str, bool);
        let cases: Vec<Case> = vec![
            (drift(|s| parameter(s, "n")["maximum"] = json!(4)), "parameter `n`: `maximum` was 10, is 4", true),
            (drift(|s| parameter(s, "n")["maximum"] = json!(20)), "parameter `n`: `maximum` was 10, is 20", false),
            (
                drift(|s| parameter(s, "n")["maximum"] = json!(null)),
                "parameter `n`: `maximum` was 10, is no longer there",
                false,
            ),
            (drift(|s| parameter(s, "n")["minimum"] = json!(2)), "parameter `n`: `minimum` was 1, is 2", true),
            (drift(|s| parameter(s, "n")["default"] = json!(2)), "parameter `n`: `default` was 1, is 2", false),
            (
                drift(|s| parameter(s, "n")["type"] = json!("string")),
                "parameter `n`: `type` was \"integer\", is \"string\"",
                true,
            ),
            (
                drift(|s| parameter(s, "output_format")["enum"] = json!(["png", "jpeg", "gif", "webp"])),
                "parameter `output_format`: `enum.avif` was \"avif\", is no longer there",
                true,
            ),
            (
                drift(|s| parameter(s, "response_format")["enum"] = json!(["url", "b64_json", "file"])),
                "parameter `response_format`: `enum.file` is new: \"file\"",
                false,
            ),
            (
                drift(|s| parameter(s, "size")["enum"] = json!(["1024x1024"])),
                "parameter `size`: `enum` is new: [\"1024x1024\"]",
                true,
            ),
            (
                drift(|s| parameter(s, "prompt")["modes"]["image_edit"] = json!("required")),
                "parameter `prompt`: `modes.image_edit` was \"optional\", is \"required\"",
                true,
            ),
            (
                drift(|s| parameter(s, "n")["overrides"] = json!(["size"])),
                "parameter `n`: `overrides` is new: [\"size\"]",
                true,
            ),
            (
                drift(|s| s["max_resolution"]["width"] = json!(1024)),
                "the model: `max_resolution.width` was 1414, is 1024",
                true,
            ),
            (
                drift(|s| s["modes"] = json!(["text_to_image"])),
                "the model: `modes.image_edit` was \"image_edit\", is no longer there",
                true,
            ),
            (
                drift(|s| s["providers"][0]["price"]["usd"] = json!(0.03)),
                "provider `fal`: `price.usd` was 0.02, is 0.03",
                false,
            ),
            (
                drift(|s| drop(s["providers"].as_array_mut().unwrap().remove(0))),
                "provider `fal` is no longer there",
                true,
            ),
            (
                drift(|s| drop(s["parameters"].as_array_mut().unwrap().remove(2))),
                "parameter `mask` is no longer there",
                true,
            ),
            (
                drift(|s| s["parameters"].as_array_mut().unwrap().push(json!({ "name": "style", "modes": {} }))),
                "parameter `style` is new",
                false,
            ),
        ];
        for (changes, words, breaking) in cases {
            assert_eq!(changes, [(words.to_owned(), breaking)]);
        }
    }

    #[test]
    fn what_is_no_schema_is_an_error() {
        for answer in [json!(null), json!([]), json!({ "id": "m" }), json!({ "schema": { "parameters": [1] } })] {
            assert_eq!(SCHEMA.changes(&answer).unwrap_err().kind(), ErrorKind::InvalidResponse, "{answer}");
        }
    }
}
