//! Checks of default values, by the rules that apply to the values of requests.

use serde_json::Value;

use crate::model::Kind;
use crate::schema::MaxResolution;

/// Returns an error if the parameter itself does not support its default.
pub(crate) fn check(default: &Value, kind: &Kind, max_size: Option<MaxResolution>) -> Result<(), String> {
    let wrong_type = |expected: &str| format!("the default is {default}; it must be {expected}");
    let text = || default.as_str().ok_or_else(|| wrong_type("a string"));
    let problem = match kind {
        Kind::Text { max_length } => {
            let length = text()?.chars().count();
            let exceeded = max_length.filter(|max| length > *max);
            exceeded.map(|max| format!("the default has {length} characters, and `max_length` is {max}"))
        }
        Kind::Choice(choices) => {
            let text = text()?;
            let is_listed = choices.iter().any(|choice| choice == text);
            (!is_listed).then(|| format!("the default {text:?} is not a value of `enum`"))
        }
        Kind::Size => match (pair(text()?, 'x'), max_size) {
            (Some((width, height)), Some(max)) if width > max.width || height > max.height => Some(format!(
                "the default is {width}x{height}, which exceeds the `max_resolution` {}x{}",
                max.width, max.height
            )),
            (None, _) if pair(text()?, ':').is_none() => {
                Some(wrong_type("\"1024x1024\" with no side of 0, or a ratio such as \"16:9\""))
            }
            _ => None,
        },
        Kind::AspectRatio => {
            pair(text()?, ':').is_none().then(|| wrong_type("a ratio such as \"16:9\", with no side of 0"))
        }
        Kind::Resolution => {
            let tier = text()?.strip_suffix('K').and_then(positive);
            tier.is_none().then(|| wrong_type("a tier such as \"1K\""))
        }
        Kind::Integer { minimum, maximum, .. } => {
            let number = default.as_i64().map(i128::from).or_else(|| default.as_u64().map(i128::from));
            let number = number.ok_or_else(|| wrong_type("a whole number"))?;
            (number < *minimum || number > *maximum).then(|| wrong_type(&format!("{minimum} to {maximum}")))
        }
        Kind::Number { minimum, maximum } => {
            let number = default.as_f64().ok_or_else(|| wrong_type("a number"))?;
            (number < *minimum || number > *maximum).then(|| wrong_type(&format!("{minimum} to {maximum}")))
        }
        Kind::Boolean => (!default.is_boolean()).then(|| wrong_type("true or false")),
        Kind::File { .. } => Some("a file cannot have a default; remove it".into()),
    };
    problem.map_or(Ok(()), Err)
}

fn pair(text: &str, separator: char) -> Option<(u32, u32)> {
    let (first, second) = text.split_once(separator)?;
    Some((positive(first)?, positive(second)?))
}

fn positive(digits: &str) -> Option<u32> {
    digits.parse().ok().filter(|value| *value > 0 && !digits.starts_with('+'))
}
