//! Text in generated code: documentation, identifiers and lists of names.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use crate::names;

/// Returns `#[doc]` attributes, one for each line.
pub(super) fn doc(text: &str) -> TokenStream {
    let lines = text.lines().map(|line| match line.trim_end() {
        "" => String::new(),
        line => format!(" {line}"),
    });
    quote!(#(#[doc = #lines])*)
}

/// Returns an attribute for items whose documentation contains text of the schema, which need not be Markdown.
pub(super) fn schema_text() -> TokenStream {
    quote!(#[allow(clippy::doc_markdown, reason = "the text is from the schema")])
}

/// Returns an identifier, with the prefix `r#` if `name` is a keyword.
pub(super) fn ident(name: &str) -> Ident {
    match names::is_keyword(name) {
        true => format_ident!("r#{name}"),
        false => format_ident!("{name}"),
    }
}

/// Returns a description on one line, without its full stop.
pub(super) fn sentence(description: &str) -> String {
    description.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_string()
}

/// Returns a description that can follow a colon: its first letter in lower case, except in an abbreviation such as
/// `PNG`.
pub(super) fn lower_case(description: &str) -> String {
    let sentence = sentence(description);
    let mut letters = sentence.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(letters).collect(),
        _ => sentence,
    }
}

/// Escapes text for a message of `#[diagnostic::on_unimplemented]`, which is a format string.
pub(super) fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Returns "`a`, `b` or `c`", or "none" for an empty list.
pub(super) fn or<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
