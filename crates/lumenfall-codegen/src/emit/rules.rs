//! The schema's rules as traits. Each has the message that the compiler reports if the rule is violated.

use proc_macro2::TokenStream;
use quote::quote;

use super::{parameters, text};
use crate::model::{Kind, Model, Parameter};
use crate::names;
use crate::schema::Mode;

pub(super) fn providers(model: &Model) -> TokenStream {
    if model.providers.is_empty() {
        return TokenStream::new();
    }
    let types = model.providers.iter().map(|provider| {
        let type_name = text::ident(&names::type_name(&provider.slug));
        let mut doc = format!("{}.", text::sentence(&provider.name));
        if let Some(price) = &provider.price {
            doc.push_str(&format!(" ${} per {}.", price.usd, price.per.word()));
        }
        let doc = text::doc(&doc);
        quote! {
            #doc
            #[derive(Clone, Copy, Debug)]
            pub struct #type_name;
        }
    });
    let allow = text::schema_text();
    quote! {
        /// The providers that run the model, for `pin`.
        #allow
        pub mod providers {
            #(#types)*
        }
    }
}

pub(super) fn rules(model: &Model, shorthands: bool) -> TokenStream {
    let values = model.parameters.iter().filter_map(|parameter| value(parameter, shorthands));
    let allowed = model.parameters.iter().map(|parameter| allowed(model, parameter));
    let requirements = model.parameters.iter().map(requirements);
    let absents = model.modes.iter().map(|&mode| absents(model, mode));
    let pins = model.modes.iter().map(|&mode| pins(model, mode));
    quote! {
        /// The schema's rules, as traits that the builder's methods require.
        pub mod rules {
            #(#values)*
            #(#allowed)*
            #(#requirements)*
            #(#absents)*
            #(#pins)*
        }
    }
}

/// Emits the trait of the types that a setter accepts.
fn value(parameter: &Parameter, shorthands: bool) -> Option<TokenStream> {
    let Parameter { name, kind, .. } = parameter;
    if matches!(kind, Kind::Choice(_)) {
        return None;
    }
    let plain = parameters::plain_type(parameter)?;
    let trait_name = text::ident(&names::value(name));
    let type_name = text::ident(&names::camel(name));
    let doc = text::doc(&format!("A type that the setter of `{name}` accepts."));
    let is_text = matches!(kind, Kind::Text { .. });
    let (message, label) = if is_text {
        (format!("`{name}` requires text, not `{{Self}}`"), "write a `&str` or a `String`".into())
    } else {
        let (literal, at_run_time) = (literal(parameter, shorthands), parameters::at_run_time(parameter)?);
        (format!("`{name}` requires a checked value, not `{{Self}}`"), format!("write `{literal}`, or {at_run_time}"))
    };
    // `do_not_recommend` lets the compiler report the message of this trait, which names the parameter.
    let texts = is_text.then(|| {
        quote! {
            #[diagnostic::do_not_recommend]
            impl<T: super::typed::Text> #trait_name for T {
                fn value(self) -> #plain {
                    self.into_text()
                }
            }
        }
    });
    Some(quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label)]
        pub trait #trait_name {
            /// Returns the plain value.
            fn value(self) -> #plain;
        }

        impl #trait_name for super::parameters::#type_name {
            fn value(self) -> #plain {
                self.get()
            }
        }

        #texts
    })
}

/// Returns an example of a literal that is checked at compile time.
fn literal(parameter: &Parameter, shorthands: bool) -> String {
    let example = match &parameter.kind {
        Kind::Size => "\"1024x1024\"".into(),
        Kind::AspectRatio => "\"16:9\"".into(),
        Kind::Resolution => "\"1K\"".into(),
        Kind::Integer { minimum, maximum, .. } => 2.clamp(*minimum, *maximum).to_string(),
        Kind::Number { minimum, maximum } => format!("{:?}", 1f64.max(*minimum).min(*maximum)),
        Kind::Text { .. } | Kind::Choice(_) | Kind::Boolean | Kind::File { .. } => "\"…\"".into(),
    };
    match parameter.name.as_str() {
        "n" if shorthands => format!("count!({example})"),
        "output_compression" if shorthands => "percent!(80)".into(),
        short @ ("size" | "aspect_ratio" | "resolution") if shorthands => format!("{short}!({example})"),
        name => format!("literal!(parameters::{}, {example})", names::camel(name)),
    }
}

/// Emits the trait of the builder states in which `parameter` may be set:
///
/// - A parameter that overrides others may be set once, and only if none of the others is set.
/// - A parameter that others require may be set once, so that a requirement which was met stays met.
/// - A parameter that is overridden may be set if the overriding parameter is not set.
fn allowed(model: &Model, parameter: &Parameter) -> TokenStream {
    let Parameter { name, overrides, .. } = parameter;
    let trait_name = text::ident(&names::allowed(name));
    let doc = text::doc(&format!("A builder state in which `{name}` may be set."));
    let is_tracked = model.tracked().any(|tracked| tracked.name == *name);
    let overriders: Vec<_> = model.overriders(name).collect();
    let calls = |names: &[&str]| text::or(&names.iter().map(|name| format!("{name}(..)")).collect::<Vec<_>>());
    let is_size = |parameter: &&Parameter| matches!(parameter.kind, Kind::Size);
    let reason = match [parameter].iter().chain(&overriders).any(is_size) {
        true => ": each sets the image's dimensions",
        false => "",
    };
    let mut excluded = None;
    let (message, earlier) = if !overrides.is_empty() {
        let others: Vec<&str> = overrides.iter().map(String::as_str).chain([name.as_str()]).collect();
        let message = format!("`{name}` can be set only once, and not together with {}", text::or(overrides));
        (message, calls(&others) + reason)
    } else if is_tracked {
        (format!("`{name}` can be set only once"), calls(&[name]))
    } else if !overriders.is_empty() {
        let others: Vec<&str> = overriders.iter().map(|other| other.name.as_str()).collect();
        excluded = Some(quote!(impl #trait_name for super::typed::Excluded {}));
        (format!("`{name}` cannot be combined with {}", text::or(&others)), calls(&others) + reason)
    } else {
        return TokenStream::new();
    };
    let label = format!("remove this call, or the earlier {earlier}");
    let note = "to set parameters under a condition, call `.into_draft()` and then `.set(name, value)?`";
    quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label, note = #note)]
        pub trait #trait_name {}
        impl #trait_name for super::typed::Unset {}
        #excluded
    }
}

/// Emits the traits of the values of other parameters that `parameter` requires.
fn requirements(parameter: &Parameter) -> TokenStream {
    let rules = parameter.requires.iter().map(|(other, values)| {
        let Parameter { name, .. } = parameter;
        let trait_name = text::ident(&names::requires(name, other));
        let type_names: Vec<_> = values.iter().map(|value| names::type_name(value)).collect();
        let list = text::or(&type_names);
        let doc = text::doc(&format!(
            "A value of `{other}` that `{name}` requires: {list}, or one that is known only at run time and is checked \
             when the request is sent."
        ));
        let message = format!("`{name}` requires an earlier call that sets `{other}` to {list}");
        let label = format!("at this call, `{other}` is `{{Self}}`");
        let first = type_names.first().map_or("", String::as_str);
        let note = format!("write `.{other}({first})` before `.{name}(..)`, or remove `.{name}(..)`");
        let (module, checked) = (text::ident(other), text::ident(&names::camel(other)));
        let idents = type_names.iter().map(|name| text::ident(name));
        quote! {
            #doc
            #[diagnostic::on_unimplemented(message = #message, label = #label, note = #note)]
            pub trait #trait_name {}
            #(impl #trait_name for super::#module::#idents {})*
            impl #trait_name for super::parameters::#checked {}
        }
    });
    quote!(#(#rules)*)
}

/// Emits the traits that keep the parameters of the other mode out of `mode`.
fn absents(model: &Model, mode: Mode) -> TokenStream {
    let other = match mode {
        Mode::TextToImage => Mode::ImageEdit,
        Mode::ImageEdit => Mode::TextToImage,
    };
    let (here, there, start) = (mode.names().words, other.names().words, other.names().method);
    let rules = model.absent(mode).map(|name| {
        let trait_name = text::ident(&names::absent(name, mode));
        let doc = text::doc(&format!("Has no implementations: `{name}` is not a parameter of {here}."));
        let message = format!("`{name}` is a parameter of {there}, not of {here}");
        let label = format!("remove this call, or start the request with `.{start}(..)`");
        quote! {
            #doc
            #[diagnostic::on_unimplemented(message = #message, label = #label)]
            pub trait #trait_name {}
        }
    });
    quote!(#(#rules)*)
}

/// Emits the trait of the providers that run `mode`.
fn pins(model: &Model, mode: Mode) -> TokenStream {
    if model.providers.is_empty() {
        return TokenStream::new();
    }
    let trait_name = text::ident(&names::runs(mode));
    let able: Vec<_> = model.providers.iter().filter(|provider| provider.modes.contains(&mode)).collect();
    let type_names: Vec<_> = able.iter().map(|provider| names::type_name(&provider.slug)).collect();
    let words = mode.names().words;
    let doc = text::doc(&format!("A provider that offers {words}."));
    let message = format!("`{{Self}}` does not offer {words} with {}", text::escape(&model.name));
    let label = match type_names.is_empty() {
        true => format!("remove this call: no provider offers {words}"),
        false => format!("pin {}, or remove this call", text::or(&type_names)),
    };
    let idents = type_names.iter().map(|name| text::ident(name));
    let slugs = able.iter().map(|provider| &provider.slug);
    quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label)]
        pub trait #trait_name {
            /// Returns the provider's name in the API.
            fn slug(self) -> &'static str;
        }

        #(
            impl #trait_name for super::providers::#idents {
                fn slug(self) -> &'static str {
                    #slugs
                }
            }
        )*
    }
}
