//! Rust names for the names in a schema.

use crate::schema::Mode;

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

/// Like [`camel`], but a valid type name: it does not start with a digit and is not the keyword `Self`.
pub(crate) fn type_name(name: &str) -> String {
    match camel(name) {
        camel if camel.starts_with(|c: char| c.is_ascii_digit()) || camel == "Self" => format!("Value{camel}"),
        camel => camel,
    }
}

/// `stable-diffusion-3.5-medium` → `stable_diffusion_3_5_medium`.
pub(crate) fn snake(name: &str) -> String {
    let snake = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    match snake.starts_with(|c: char| c.is_ascii_digit()) || is_keyword(&snake) {
        true => format!("model_{snake}"),
        false => snake,
    }
}

/// Returns whether `name` is a keyword, which can be an identifier only with the prefix `r#`.
pub(crate) fn is_keyword(name: &str) -> bool {
    // Keywords since the edition of 2018 or 2024, and keywords of all editions that `syn` knows.
    matches!(name, "async" | "await" | "dyn" | "gen" | "try") || syn::parse_str::<syn::Ident>(name).is_err()
}

/// Returns whether `name` is a keyword that cannot be an identifier, not even with the prefix `r#`.
pub(crate) fn is_path_keyword(name: &str) -> bool {
    matches!(name, "self" | "super" | "crate")
}

/// Returns whether `character` is a control character, or one that changes the direction of text.
pub(crate) fn is_control(character: char) -> bool {
    let changes_direction =
        matches!(character, '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    character.is_control() || changes_direction || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Returns whether `name` consists of lower-case letters, digits and underscores, and starts with a letter.
pub(crate) fn is_snake(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Type parameter of the builder that records whether `parameter` is set.
pub(crate) fn state(parameter: &str) -> String {
    format!("{}State", camel(parameter))
}

/// Trait of the types that the setter of `parameter` accepts.
pub(crate) fn value(parameter: &str) -> String {
    format!("{}Value", camel(parameter))
}

/// Trait of the states in which `parameter` may be set.
pub(crate) fn allowed(parameter: &str) -> String {
    format!("{}Allowed", camel(parameter))
}

/// Trait of the values of `other` that `parameter` requires.
pub(crate) fn requires(parameter: &str, other: &str) -> String {
    format!("{}Requires{}", camel(parameter), camel(other))
}

/// Trait without implementations, which keeps `parameter` out of `mode`.
pub(crate) fn absent(parameter: &str, mode: Mode) -> String {
    format!("{}In{mode:?}", camel(parameter))
}

/// Trait of the providers that run `mode`.
pub(crate) fn runs(mode: Mode) -> String {
    format!("Runs{mode:?}")
}
