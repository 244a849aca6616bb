//! Words in generated code: documentation, identifiers, messages.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

/// Documentation, an attribute a line.
pub(super) fn doc(text: &str) -> TokenStream {
    let lines = text.lines().map(|line| match line.trim_end() {
        "" => String::new(),
        line => format!(" {line}"),
    });
    quote!(#(#[doc = #lines])*)
}

pub(super) fn ident(name: &str) -> Ident {
    format_ident!("{name}")
}

/// A description on one line, without its full stop.
pub(super) fn sentence(description: &str) -> String {
    description.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_string()
}

/// Text for a diagnostic's format string, where braces mean something.
pub(super) fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// `a`, `b` or `c`, each in backquotes.
pub(super) fn or<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
