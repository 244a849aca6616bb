//! A problem of a schema, and its place in the JSON.

use std::fmt;

use serde_json::Value;

use crate::names;

/// A problem, and the path of the JSON value that causes it, such as `parameters[3].maximum`.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Empty for the whole file.
    path: String,
    message: String,
}

impl Problem {
    pub(crate) fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// Adds the parameter that contains the value. `index` is its position in `parameters`.
    pub(crate) fn of_parameter(self, index: usize, name: &str) -> Self {
        let path = match self.path.as_str() {
            "" => format!("parameters[{index}]"),
            key => format!("parameters[{index}].{key}"),
        };
        Self { path, message: format!("parameter `{}`: {}", name.escape_debug(), self.message) }
    }

    /// Describes JSON that does not have the form of a schema. `json` is `None` if it is not valid JSON.
    pub(crate) fn of_form(error: &serde_path_to_error::Error<serde_json::Error>, json: Option<&Value>) -> Self {
        let path = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let problem = Self::at(path, error.inner().to_string());
        let index = problem.path.strip_prefix("parameters[").and_then(|rest| rest.split_once(']'));
        let name = index.and_then(|(index, _)| json?.get("parameters")?.get(index.parse::<usize>().ok()?)?.get("name"));
        match name.and_then(Value::as_str) {
            Some(name) => {
                Self { message: format!("parameter `{}`: {}", name.escape_debug(), problem.message), ..problem }
            }
            None => problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{} (at `{}`)", self.message, path.escape_debug()),
        }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::at("", message)
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        Self::at("", message)
    }
}

/// Returns an error for the first text that contains control characters. In generated code they would be invalid, or, if they
/// change the direction of text, display other code than the compiler reads. Line breaks and tabs are allowed in descriptions.
pub(crate) fn reject_control_characters(json: &Value) -> Result<(), Problem> {
    let Some(parameters) = json.get("parameters").and_then(Value::as_array) else {
        return control_characters(json, "");
    };
    for (index, parameter) in parameters.iter().enumerate() {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        control_characters(parameter, "").map_err(|problem| problem.of_parameter(index, name))?;
    }
    control_characters(json, "")
}

fn control_characters(json: &Value, path: &str) -> Result<(), Problem> {
    let check = |text: &str, path: &str| {
        let is_allowed = |c: char| path.rsplit('.').next() == Some("description") && matches!(c, '\n' | '\r' | '\t');
        match text.chars().find(|&c| names::is_control(c) && !is_allowed(c)) {
            Some(c) => {
                let message = format!("the text contains the control character U+{:04X}; remove it", u32::from(c));
                Err(Problem::at(path, message))
            }
            None => Ok(()),
        }
    };
    match json {
        Value::String(text) => check(text, path),
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| control_characters(item, &format!("{path}[{index}]")))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            check(key, &path)?;
            control_characters(value, &path)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
