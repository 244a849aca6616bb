//! The types of parameters' values: checked newtypes, and a type for each word of an `enum`.

use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};

use super::{statics, text};
use crate::model::{Kind, Model, Parameter, Slot};
use crate::names;

/// The type of the builder's argument.
pub(super) fn argument(parameter: &Parameter) -> TokenStream {
    let name = text::ident(&parameter.name);
    match parameter.kind {
        Kind::Choice(_) => quote!(impl #name::Value),
        Kind::Boolean => quote!(bool),
        Kind::File { repeatable: true } => quote!(impl typed::Inputs),
        Kind::File { repeatable: false } => quote!(::lumenfall::Input),
        _ => {
            let value = format_ident!("{}Value", names::camel(&parameter.name));
            quote!(impl rules::#value)
        }
    }
}

/// The plain value of an argument.
pub(super) fn plain(parameter: &Parameter) -> TokenStream {
    let name = text::ident(&parameter.name);
    match parameter.kind {
        Kind::Boolean | Kind::File { repeatable: false } => quote!(#name),
        Kind::File { repeatable: true } => quote!(#name.into_inputs()),
        _ => quote!(#name.value()),
    }
}

/// The plain value's type, of a parameter that has a checked newtype.
pub(super) fn plain_type(kind: &Kind) -> Option<TokenStream> {
    match kind {
        Kind::Text { .. } => Some(quote!(::std::string::String)),
        Kind::Size => Some(quote!(::lumenfall::Size)),
        Kind::AspectRatio => Some(quote!(::lumenfall::AspectRatio)),
        Kind::Resolution => Some(quote!(::lumenfall::Resolution)),
        Kind::Integer { rust, .. } => {
            let rust = text::ident(rust);
            Some(quote!(#rust))
        }
        Kind::Number { .. } => Some(quote!(f64)),
        Kind::Choice(_) | Kind::Boolean | Kind::File { .. } => None,
    }
}

/// What to write in the source for a checked value.
pub(super) fn literal(parameter: &Parameter, shorthands: bool) -> String {
    let name = names::camel(&parameter.name);
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
        short @ ("prompt" | "size" | "aspect_ratio" | "resolution") if shorthands => format!("{short}!({example})"),
        _ => format!("literal!(parameters::{name}, {example})"),
    }
}

/// What a checked value must be, in words.
pub(super) fn range(model: &Model, kind: &Kind) -> String {
    match (kind, model.max_size) {
        (Kind::Size, Some(max)) => format!("pixels up to {}x{}, or an aspect ratio", max.width, max.height),
        (Kind::Size, None) => "pixels, or an aspect ratio".into(),
        (Kind::AspectRatio, _) => "an aspect ratio such as `16:9`".into(),
        (Kind::Resolution, _) => "a tier such as `1K`".into(),
        (Kind::Integer { minimum, maximum, .. }, _) => format!("{minimum} to {maximum}"),
        (Kind::Number { minimum, maximum }, _) if *minimum == f64::MIN && *maximum == f64::MAX => "any number".into(),
        (Kind::Number { minimum, maximum: f64::MAX }, _) => format!("{minimum} or more"),
        (Kind::Number { minimum: f64::MIN, maximum }, _) => format!("at most {maximum}"),
        (Kind::Number { minimum, maximum }, _) => format!("{minimum} to {maximum}"),
        (Kind::Text { max_length: Some(max) }, _) => format!("text of at most {max} characters"),
        (Kind::Text { max_length: None } | Kind::Choice(_) | Kind::Boolean | Kind::File { .. }, _) => "text".into(),
    }
}

pub(super) fn parameters(model: &Model, shorthands: bool) -> TokenStream {
    let types = model.parameters.iter().filter_map(|parameter| newtype(model, parameter, shorthands));
    quote! {
        /// Values that have been checked: while compiling by `literal!`, or at run time by `new`.
        pub mod parameters {
            #(#types)*
        }
    }
}

fn newtype(model: &Model, parameter: &Parameter, shorthands: bool) -> Option<TokenStream> {
    let plain = plain_type(&parameter.kind)?;
    let Parameter { name, kind, .. } = parameter;
    let type_name = format_ident!("{}", names::camel(name));
    let range = range(model, kind);
    let doc = text::doc(&format!("A value of `{name}`: {range}."));
    let wrong = format!("`{name}` must be {range}; write `{}`", literal(parameter, shorthands));
    let is_text = matches!(kind, Kind::Text { .. });
    let (input, body) = match kind {
        Kind::Text { max_length } => {
            let max = max_length.map_or(quote!(usize::MAX), |max| {
                let max = Literal::usize_unsuffixed(max);
                quote!(#max)
            });
            let long = format!("`{name}` must be {range}; shorten it");
            let blank = if parameter.is_required() {
                let message = format!("`{name}` must not be blank; say what it is");
                quote!(::core::option::Option::Some(#message))
            } else {
                quote!(::core::option::Option::None)
            };
            (quote!(&'static str), quote!(::std::borrow::Cow::Borrowed(super::typed::text(value, #max, #long, #blank))))
        }
        Kind::Size => {
            let malformed = format!("`{name}` is malformed, or has a side of 0; write it as \"1024x1024\" or \"16:9\"");
            let large = format!("`{name}` is too large for {}: it must be {range}", model.name);
            let max = statics::max_size(model.max_size);
            (quote!(&'static str), quote!(super::typed::size(value, #max, #malformed, #large)))
        }
        Kind::AspectRatio => {
            let malformed = format!("`{name}` is malformed, or has a side of 0; write it as \"16:9\"");
            (quote!(&'static str), quote!(super::typed::aspect_ratio(value, #malformed)))
        }
        Kind::Resolution => {
            let malformed = format!("`{name}` is malformed, or 0; write it as \"1K\"");
            (quote!(&'static str), quote!(super::typed::resolution(value, #malformed)))
        }
        Kind::Integer { minimum, maximum, .. } => {
            let (minimum, maximum) = (statics::integer(*minimum), statics::integer(*maximum));
            (quote!(i128), quote!(super::typed::integer(value, #minimum, #maximum, #wrong) as #plain))
        }
        Kind::Number { minimum, maximum } => {
            let (minimum, maximum) = (statics::float(*minimum), statics::float(*maximum));
            (quote!(f64), quote!(super::typed::number(value, #minimum, #maximum, #wrong)))
        }
        Kind::Choice(_) | Kind::Boolean | Kind::File { .. } => return None,
    };
    let (derives, inner, new, get) = if is_text {
        let inner = quote!(::std::borrow::Cow<'static, str>);
        let new = quote! {
            pub fn new(
                value: impl ::core::convert::Into<::std::string::String>,
            ) -> ::core::result::Result<Self, ::lumenfall::Error> {
                let value = value.into();
                super::SCHEMA.check(#name, &value.as_str().into())?;
                ::core::result::Result::Ok(Self(value.into()))
            }
        };
        let get = quote! {
            /// The text itself.
            pub fn get(self) -> ::std::string::String {
                self.0.into_owned()
            }
        };
        (quote!(Clone, Debug, PartialEq), inner, new, get)
    } else {
        let json = match kind {
            Kind::Integer { .. } | Kind::Number { .. } => quote!(value.into()),
            _ => quote!(value.to_string().into()),
        };
        let new = quote! {
            pub fn new(value: #plain) -> ::core::result::Result<Self, ::lumenfall::Error> {
                super::SCHEMA.check(#name, &#json)?;
                ::core::result::Result::Ok(Self(value))
            }
        };
        let get = quote! {
            /// The value itself.
            pub const fn get(self) -> #plain {
                self.0
            }
        };
        (quote!(Clone, Copy, Debug, PartialEq), plain.clone(), new, get)
    };
    Some(quote! {
        #doc
        #[derive(#derives)]
        pub struct #type_name(#inner);

        impl #type_name {
            /// For `literal!`, which makes it fail to compile where the value breaks a rule.
            #[doc(hidden)]
            #[track_caller]
            pub const fn literal(value: #input) -> Self {
                Self(#body)
            }

            /// A value that is known only at run time.
            ///
            /// # Errors
            /// Where it breaks a rule of the model's schema.
            #new

            #get
        }
    })
}

/// A module for each parameter with an `enum`, and in it a type for each word.
pub(super) fn choices(model: &Model) -> TokenStream {
    let modules = model.parameters.iter().filter_map(|parameter| match &parameter.kind {
        Kind::Choice(choices) => Some(choice(model, parameter, choices)),
        _ => None,
    });
    quote!(#(#modules)*)
}

fn choice(model: &Model, parameter: &Parameter, choices: &[String]) -> TokenStream {
    let Parameter { name, .. } = parameter;
    let module = text::ident(name);
    let type_names: Vec<_> = choices.iter().map(|choice| names::type_name(choice)).collect();
    let doc = text::doc(&format!("The values of `{name}`."));
    let trait_doc = text::doc(&format!("A value of `{name}`: {}.", text::or(&type_names)));
    let message = format!("`{{Self}}` is not a value of `{name}` of {}", text::escape(&model.name));
    let label = format!("write {}", text::or(&type_names));
    let plain = match parameter.slot {
        Slot::Option("output_format") => quote!(::lumenfall::OutputFormat),
        Slot::Option("response_format") => quote!(::lumenfall::ResponseFormat),
        _ => quote!(&'static str),
    };
    let answers = parameter.slot == Slot::Option("response_format");
    let answer = answers.then(|| {
        quote! {
            /// How the answer holds its images.
            type Answer: ::lumenfall::images::Delivery;
        }
    });
    let types = choices.iter().zip(&type_names).map(|(choice, type_name)| {
        let doc = text::doc(&format!("`{choice}`."));
        let type_name = text::ident(type_name);
        let value = match parameter.slot {
            Slot::Option("output_format" | "response_format") => quote!(#plain::#type_name),
            _ => quote!(#choice),
        };
        let answer = answers.then(|| match choice.as_str() {
            "b64_json" => quote!(
                type Answer = ::lumenfall::Inline;
            ),
            _ => quote!(
                type Answer = ::lumenfall::Address;
            ),
        });
        quote! {
            #doc
            #[derive(Clone, Copy, Debug)]
            pub struct #type_name;

            impl Value for #type_name {
                #answer

                fn value(self) -> #plain {
                    #value
                }
            }
        }
    });
    quote! {
        #doc
        pub mod #module {
            #trait_doc
            #[diagnostic::on_unimplemented(message = #message, label = #label)]
            pub trait Value {
                #answer

                /// The value itself.
                fn value(self) -> #plain;
            }

            #(#types)*
        }
    }
}
