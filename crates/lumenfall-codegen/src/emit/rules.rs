//! The schema's rules as traits, each with the message that the compiler gives where it is broken.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::{builder, parameters, text};
use crate::model::{Kind, Model, Parameter};
use crate::names;
use crate::schema::Mode;

/// The name of the trait that allows `parameter` beside what was called before.
pub(super) fn free(parameter: &str) -> proc_macro2::Ident {
    format_ident!("{}Free", names::camel(parameter))
}

/// The name of the trait that `parameter` requires of the state of `other`.
pub(super) fn needs(parameter: &str, other: &str) -> proc_macro2::Ident {
    format_ident!("{}Needs{}", names::camel(parameter), names::camel(other))
}

/// The name of the trait, without implementations, that keeps `parameter` out of `mode`.
pub(super) fn absent(parameter: &str, mode: Mode) -> proc_macro2::Ident {
    text::ident(&format!("{}In{mode:?}", names::camel(parameter)))
}

/// The name of the trait of the providers that run `mode`.
pub(super) fn runs(mode: Mode) -> proc_macro2::Ident {
    text::ident(&format!("Runs{mode:?}"))
}

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
    quote! {
        /// Who runs the model, for `pin`.
        pub mod providers {
            #(#types)*
        }
    }
}

pub(super) fn rules(model: &Model, shorthands: bool) -> TokenStream {
    let values = model.parameters.iter().filter_map(|parameter| value(parameter, shorthands));
    let frees = model.parameters.iter().map(|parameter| frees(model, parameter));
    let needs = model.parameters.iter().map(requirements);
    let absents = model.modes.iter().map(|&mode| absents(model, mode));
    let pins = model.modes.iter().map(|&mode| pins(model, mode));
    quote! {
        /// The schema's rules, as the compiler reads them.
        pub mod rules {
            #(#values)*
            #(#frees)*
            #(#needs)*
            #(#absents)*
            #(#pins)*
        }
    }
}

/// What the setter of a parameter takes.
fn value(parameter: &Parameter, shorthands: bool) -> Option<TokenStream> {
    let plain = parameters::plain_type(&parameter.kind)?;
    let Parameter { name, .. } = parameter;
    let trait_name = format_ident!("{}Value", names::camel(name));
    let type_name = text::ident(&names::camel(name));
    let doc = text::doc(&format!("What `{name}` takes."));
    let literal = parameters::literal(parameter, shorthands);
    let from_text = matches!(parameter.kind, Kind::Text { .. });
    let (message, label) = if from_text {
        (format!("`{name}` takes text, not `{{Self}}`"), "write a `&str` or a `String`".into())
    } else {
        let run_time = match parameter.is_required() {
            true => format!("parameters::{type_name}::new(value)?"),
            false => format!(".try_{name}(value)?"),
        };
        (
            format!("`{name}` takes a checked value, not `{{Self}}`"),
            format!("write `{literal}`, or `{run_time}` for what is known only at run time"),
        )
    };
    let texts = from_text.then(|| {
        quote! {
            impl #trait_name for &str {
                fn value(self) -> #plain {
                    self.into()
                }
            }

            impl #trait_name for #plain {
                fn value(self) -> #plain {
                    self
                }
            }

            impl #trait_name for &#plain {
                fn value(self) -> #plain {
                    ::core::clone::Clone::clone(self)
                }
            }
        }
    });
    Some(quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label)]
        pub trait #trait_name {
            /// The value itself.
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

/// For a parameter that overrides others: nothing of both may be there. For one that others
/// require: it is given once, so that what relies on it stays true. For one that is overridden:
/// what overrides it may not be there.
fn frees(model: &Model, parameter: &Parameter) -> TokenStream {
    let Parameter { name, overrides, .. } = parameter;
    let trait_name = free(name);
    let doc = text::doc(&format!("Where `{name}` may still be given."));
    let tracked = model.modes.iter().any(|&mode| model.states(mode).any(|state| state.name == *name));
    let overriders: Vec<&str> = model.overriders(name).map(|other| other.name.as_str()).collect();
    let (message, label, excluded) = if !overrides.is_empty() {
        let others = text::or(overrides);
        (
            format!("`{name}` is given once, and not together with {others}"),
            format!("drop this call, or the {others} or `{name}` before it"),
            false,
        )
    } else if tracked {
        (format!("`{name}` is given once"), format!("drop this call, or the `{name}` before it"), false)
    } else if !overriders.is_empty() {
        let others = text::or(&overriders);
        (
            format!("`{name}` cannot be combined with {others}"),
            format!("drop this call, or the {others} before it: either decides the same"),
            true,
        )
    } else {
        return TokenStream::new();
    };
    let excluded = excluded.then(|| quote!(impl #trait_name for super::typed::Excluded {}));
    quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label)]
        pub trait #trait_name {}
        impl #trait_name for super::typed::Unset {}
        #excluded
    }
}

fn requirements(parameter: &Parameter) -> TokenStream {
    let rules = parameter.requires.iter().map(|(other, values)| {
        let Parameter { name, .. } = parameter;
        let trait_name = needs(name, other);
        let type_names: Vec<_> = values.iter().map(|value| names::type_name(value)).collect();
        let doc = text::doc(&format!("Where `{other}` is as `{name}` needs it."));
        let message = format!("`{name}` needs `{other}` to be {}, set before it", text::or(&type_names));
        let label = format!("here `{other}` is `{{Self}}`");
        let note = match type_names.first() {
            Some(first) => format!("write `.{other}({first})` before `.{name}(…)`, or leave `{name}` out"),
            None => String::new(),
        };
        let module = text::ident(other);
        let idents: Vec<_> = type_names.iter().map(|name| text::ident(name)).collect();
        quote! {
            #doc
            #[diagnostic::on_unimplemented(message = #message, label = #label, note = #note)]
            pub trait #trait_name {}
            #(impl #trait_name for super::#module::#idents {})*
        }
    });
    quote!(#(#rules)*)
}

fn absents(model: &Model, mode: Mode) -> TokenStream {
    let rules = builder::absent(model, mode).map(|parameter| {
        let Parameter { name, .. } = parameter;
        let trait_name = absent(name, mode);
        let (here, there, start) = match mode {
            Mode::TextToImage => ("text to image", "image edit", "edit"),
            Mode::ImageEdit => ("image edit", "text to image", "generate"),
        };
        let doc = text::doc(&format!("Nothing: {here} has no `{name}`."));
        let message = format!("`{name}` is a parameter of {there}, not of {here}");
        let label = format!("leave it out, or start the request with `.{start}(…)`");
        quote! {
            #doc
            #[diagnostic::on_unimplemented(message = #message, label = #label)]
            pub trait #trait_name {}
        }
    });
    quote!(#(#rules)*)
}

fn pins(model: &Model, mode: Mode) -> TokenStream {
    if model.providers.is_empty() {
        return TokenStream::new();
    }
    let trait_name = runs(mode);
    let able: Vec<_> = model.providers.iter().filter(|provider| provider.modes.contains(&mode)).collect();
    let type_names: Vec<_> = able.iter().map(|provider| names::type_name(&provider.slug)).collect();
    let words = match mode {
        Mode::TextToImage => "text to image",
        Mode::ImageEdit => "image edit",
    };
    let doc = text::doc(&format!("A provider that offers {words}."));
    let message = format!("`{{Self}}` does not offer {words} with {}", text::escape(&model.name));
    let label = match type_names.is_empty() {
        true => "leave `pin` out: no provider does".into(),
        false => format!("pin {}, or leave `pin` out", text::or(&type_names)),
    };
    let idents = type_names.iter().map(|name| text::ident(name));
    let slugs = able.iter().map(|provider| &provider.slug);
    quote! {
        #doc
        #[diagnostic::on_unimplemented(message = #message, label = #label)]
        pub trait #trait_name {
            /// The provider's name on the wire.
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
