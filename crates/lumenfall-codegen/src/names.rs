//! Names of Rust for names of a schema.

/// `output_format` → `OutputFormat`; `3.5` → `35`.
pub(crate) fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

/// A type's name: what `camel` gives, kept from starting with a digit and from the one reserved word.
pub(crate) fn type_name(name: &str) -> String {
    match camel(name) {
        camel if camel.starts_with(|c: char| c.is_ascii_digit()) || camel == "Self" => format!("Value{camel}"),
        camel => camel,
    }
}

/// `stable-diffusion-3.5-medium` → `stable_diffusion_3_5_medium`.
pub(crate) fn snake(name: &str) -> String {
    let snake = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    match snake.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("model_{snake}"),
        false => snake,
    }
}

/// Whether `name` is lower-case letters, digits and underscores, and starts with a letter.
pub(crate) fn is_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
