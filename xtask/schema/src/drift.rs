//! Differences between two versions of a schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// A difference between two versions of a schema.
#[derive(Debug)]
pub(crate) struct Change {
    subject: Subject,
    /// The changed property, such as `maximum` or `modes.image_edit`. Empty if the subject itself was added or removed.
    property: String,
    /// The value before, or `None` if it was added. For a list, one element.
    pub(crate) before: Option<Value>,
    /// The value now, or `None` if it was removed. For a list, one element.
    pub(crate) now: Option<Value>,
}

#[derive(Debug)]
enum Subject {
    Model,
    Provider(String),
    Parameter(String),
}

impl Change {
    /// Returns whether the service may now reject a request that compiles: something was removed, or a limit is stricter.
    pub(crate) fn is_breaking(&self) -> bool {
        let (removed, added) = (self.now.is_none(), self.before.is_none());
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
        let (before, now) = (number(&self.before), number(&self.now));
        let is_required = |value: &Value| value == "required";
        let property: Vec<&str> = self.property.split('.').collect();
        match (&self.subject, property.as_slice()) {
            (_, [""]) => removed || self.now.as_ref().is_some_and(|parameter| modes(parameter).any(is_required)),
            (Subject::Parameter(_), ["modes", _]) => removed || self.now.as_ref().is_some_and(is_required),
            (_, ["modes", ..] | ["repeatable"]) => removed,
            // An element of a list allows one more value; a new list forbids all values that it does not contain.
            (_, ["enum" | "media_types", _] | ["requires", _, _]) => removed,
            (_, ["enum" | "media_types" | "requires" | "overrides", ..]) => added,
            (_, ["maximum" | "max_length"] | ["max_resolution", ..]) => added || (!removed && now < before),
            (_, ["minimum"]) => added || (!removed && now > before),
            (_, property) => matches!(property, ["id" | "type" | "format"]),
        }
    }
}

/// Returns `required` or `optional` for each mode of a parameter.
fn modes(parameter: &Value) -> impl Iterator<Item = &Value> {
    parameter.get("modes").and_then(Value::as_object).into_iter().flat_map(|modes| modes.values())
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
        match (&self.before, &self.now) {
            (Some(_), None) if self.property.is_empty() => f.write_str(" was removed"),
            (None, Some(_)) if self.property.is_empty() => f.write_str(" was added"),
            (Some(before), Some(now)) => write!(f, " was {before}, is {now}"),
            (Some(before), None) => write!(f, " was {before}, was removed"),
            (_, now) => write!(f, " was added: {}", now.as_ref().unwrap_or(&Value::Null)),
        }
    }
}

/// Returns the schema in a response: the object that contains the list `parameters`, at the top level or one level below.
pub(crate) fn schema(response: &Value) -> Result<&Value, String> {
    let is_schema = |value: &&Value| value.get("parameters").is_some_and(|list| members(list).is_some());
    let nested = response.as_object().and_then(|fields| fields.values().find(is_schema));
    Some(response).filter(is_schema).or(nested).ok_or_else(|| "there is no schema: no list `parameters`".to_owned())
}

/// Returns the differences between two versions of a schema.
///
/// The order of lists is ignored. A value of null, false or `[]` is the same as no value.
pub(crate) fn changes(before: &Value, now: &Value) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    compare(&mut Vec::new(), Some(schema(before)?), Some(schema(now)?), &mut changes);
    Ok(changes)
}

fn compare<'a>(path: &mut Vec<&'a str>, before: Option<&'a Value>, now: Option<&'a Value>, changes: &mut Vec<Change>) {
    let is_set = |value: &&Value| !(value.is_null() || **value == false || value.as_array().is_some_and(Vec::is_empty));
    let (before, now) = (before.filter(is_set), now.filter(is_set));
    if let (Some(old), Some(new)) = (before.and_then(members), now.and_then(members)) {
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for name in names {
            path.push(name);
            compare(path, old.get(name).copied(), new.get(name).copied(), changes);
            path.pop();
        }
    } else if !is_same(before, now) {
        changes.push(change(path, before.cloned(), now.cloned()));
    }
}

/// Returns the fields of an object or the elements of a list by their names.
fn members(value: &Value) -> Option<BTreeMap<&str, &Value>> {
    match value {
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Value::Array(items) => items.iter().map(|item| Some((name(item)?, item))).collect(),
        _ => None,
    }
}

/// Returns the name of an element: the slug of a provider, the name of a parameter, or a string itself.
fn name(item: &Value) -> Option<&str> {
    item.as_str().or_else(|| item.get("slug").or_else(|| item.get("name"))?.as_str())
}

/// Compares two values. Numbers are compared by value: 1 equals 1.0.
fn is_same(one: Option<&Value>, other: Option<&Value>) -> bool {
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    one == other || (number(one).is_some() && number(one) == number(other))
}

fn change(path: &[&str], before: Option<Value>, now: Option<Value>) -> Change {
    let (subject, property) = match path {
        ["providers", slug, property @ ..] => (Subject::Provider((*slug).into()), property),
        ["parameters", name, property @ ..] => (Subject::Parameter((*name).into()), property),
        property => (Subject::Model, property),
    };
    Change { subject, property: property.join("."), before, now }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the changes that `edit` makes to a schema.
    fn drift(edit: impl FnOnce(&mut Value)) -> Vec<(String, bool)> {
        let before = include_str!("../../../schemas/stable-diffusion-3.5-medium.json");
        let before: Value = serde_json::from_str(before).unwrap();
        let mut now = before.clone();
        edit(&mut now);
        let changes = changes(&before, &json!({ "id": "m", "object": "model", "schema": now })).unwrap();
        changes.iter().map(|change| (change.to_string(), change.is_breaking())).collect()
    }

    fn parameter<'a>(schema: &'a mut Value, name: &str) -> &'a mut Value {
        schema["parameters"].as_array_mut().unwrap().iter_mut().find(|parameter| parameter["name"] == name).unwrap()
    }

    #[test]
    fn equivalent_schemas_have_no_changes() {
        assert_eq!(drift(|_| ()), []);
        assert_eq!(drift(|schema| schema["parameters"].as_array_mut().unwrap().reverse()), []);
        assert_eq!(drift(|schema| parameter(schema, "n")["maximum"] = json!(10.0)), []);
        assert_eq!(drift(|schema| parameter(schema, "n")["overrides"] = json!([])), []);
    }

    /// Each case: an edit of a parameter, the change that is reported, and whether it is breaking.
    #[test]
    fn a_changed_parameter_is_reported_and_rated() {
        type Case = (&'static str, &'static [&'static str], Value, &'static str, bool);
        let cases: [Case; 11] = [
            ("n", &["maximum"], json!(4), "`maximum` was 10, is 4", true),
            ("n", &["maximum"], json!(20), "`maximum` was 10, is 20", false),
            ("n", &["maximum"], json!(null), "`maximum` was 10, was removed", false),
            ("n", &["minimum"], json!(2), "`minimum` was 1, is 2", true),
            ("n", &["default"], json!(2), "`default` was 1, is 2", false),
            ("n", &["type"], json!("string"), r#"`type` was "integer", is "string""#, true),
            ("n", &["overrides"], json!(["size"]), r#"`overrides` was added: ["size"]"#, true),
            ("response_format", &["enum"], json!(["url"]), r#"`enum.b64_json` was "b64_json", was removed"#, true),
            (
                "response_format",
                &["enum"],
                json!(["url", "b64_json", "file"]),
                r#"`enum.file` was added: "file""#,
                false,
            ),
            ("size", &["enum"], json!(["1024x1024"]), r#"`enum` was added: ["1024x1024"]"#, true),
            (
                "prompt",
                &["modes", "image_edit"],
                json!("required"),
                r#"`modes.image_edit` was "optional", is "required""#,
                true,
            ),
        ];
        for (name, path, value, report, is_breaking) in cases {
            let changes = drift(|schema| match path {
                [key] => parameter(schema, name)[key] = value,
                [key, inner] => parameter(schema, name)[key][inner] = value,
                _ => unreachable!(),
            });
            assert_eq!(changes, [(format!("parameter `{name}`: {report}"), is_breaking)]);
        }
    }

    #[test]
    fn a_changed_model_or_provider_is_reported_and_rated() {
        let remove = |list: &mut Value, index| drop(list.as_array_mut().unwrap().remove(index));
        let cases = [
            (
                drift(|s| s["max_resolution"]["width"] = json!(1024)),
                "the model: `max_resolution.width` was 1414, is 1024",
                true,
            ),
            (
                drift(|s| s["modes"] = json!(["text_to_image"])),
                r#"the model: `modes.image_edit` was "image_edit", was removed"#,
                true,
            ),
            (
                drift(|s| s["providers"][0]["price"]["usd"] = json!(0.03)),
                "provider `fal`: `price.usd` was 0.02, is 0.03",
                false,
            ),
            (drift(|s| remove(&mut s["providers"], 0)), "provider `fal` was removed", true),
            (drift(|s| remove(&mut s["parameters"], 2)), "parameter `mask` was removed", true),
            (
                drift(|s| s["parameters"].as_array_mut().unwrap().push(json!({ "name": "style", "modes": {} }))),
                "parameter `style` was added",
                false,
            ),
        ];
        for (changes, report, is_breaking) in cases {
            assert_eq!(changes, [(report.to_owned(), is_breaking)]);
        }
    }

    #[test]
    fn a_response_without_a_schema_is_an_error() {
        for response in [json!(null), json!([]), json!({ "id": "m" }), json!({ "schema": { "parameters": [1] } })] {
            assert!(schema(&response).unwrap_err().contains("no list `parameters`"), "{response}");
        }
    }

    #[test]
    fn inputs_that_fuzzing_found_do_not_panic() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/drift");
        let inputs = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        assert!(inputs.inspect(|input| crate::fuzz::drift(input)).count() > 0);
    }
}
