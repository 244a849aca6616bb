//! The types of parameter values: checked newtypes, and the enums and types of the values of an `enum`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::{statics, text};
use crate::model::{Kind, Model, Parameter, Slot};
use crate::names;
use crate::schema::Mode;

/// Returns the type of the setter's argument.
pub(super) fn argument(model: &Model, parameter: &Parameter) -> TokenStream {
    let name = text::ident(&parameter.name);
    match parameter.kind {
        Kind::Choice(_) if model.has_value_types(parameter) => quote!(impl #name::Value),
        Kind::Choice(_) => {
            let type_name = text::ident(&names::camel(&parameter.name));
            quote!(parameters::#type_name)
        }
        Kind::Boolean => quote!(bool),
        Kind::File { repeatable: true } => quote!(impl typed::Inputs),
        Kind::File { repeatable: false } => quote!(impl typed::IntoInput),
        _ => {
            let value = text::ident(&names::value(&parameter.name));
            quote!(impl rules::#value)
        }
    }
}

/// Emits the assignment of the setter's argument to the parameter's field. `mode` is `None` if both specs have the field.
pub(super) fn assignment(model: &Model, parameter: &Parameter, mode: Option<Mode>, draft: &TokenStream) -> TokenStream {
    let name = text::ident(&parameter.name);
    let value = match parameter.kind {
        Kind::Choice(_) if !model.has_value_types(parameter) => quote!(#name),
        Kind::Boolean => quote!(#name),
        Kind::File { repeatable: false } => quote!(typed::IntoInput::into_input(#name)),
        Kind::File { repeatable: true } => quote!(typed::Inputs::into_inputs(#name)),
        _ => quote!(#name.value()),
    };
    match parameter.slot {
        Slot::Prompt if mode == Some(Mode::TextToImage) => quote!(#draft.spec_mut().prompt = #value;),
        Slot::Prompt => quote!(#draft.spec_mut().prompt = ::core::option::Option::Some(#value);),
        Slot::Image if matches!(parameter.kind, Kind::File { repeatable: false }) => {
            quote!(#draft.spec_mut().images = ::std::vec![#value];)
        }
        Slot::Image => quote!(#draft.spec_mut().images = #value;),
        Slot::Mask => quote!(#draft.spec_mut().mask = ::core::option::Option::Some(#value);),
        Slot::Option(field) => {
            let value = match parameter.kind {
                Kind::Choice(_) => quote!(#value.into()),
                _ => value,
            };
            let field = text::ident(field);
            quote!(#draft.options_mut().#field = ::core::option::Option::Some(#value);)
        }
        Slot::Sampling(field) => {
            let value = match field {
                "guidance" | "strength" => quote!(typed::single(#value)),
                _ => value,
            };
            let field = text::ident(field);
            quote!(#draft.options_mut().sampling.#field = ::core::option::Option::Some(#value);)
        }
        Slot::Extra => {
            let name = &parameter.name;
            quote!(#draft.options_mut().extra.insert(#name.into(), #value.into());)
        }
    }
}

/// Returns the type that a parameter's checked newtype wraps. Booleans and files need no check, and an `enum` has a Rust enum.
pub(super) fn plain_type(parameter: &Parameter) -> Option<TokenStream> {
    match &parameter.kind {
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

fn is_string(parameter: &Parameter) -> bool {
    matches!(parameter.kind, Kind::Text { .. })
}

/// Returns the type of the argument of `new` and of `try_…`. `typed` is the path of the library's module `typed`.
pub(super) fn new_argument(parameter: &Parameter, typed: &TokenStream) -> Option<TokenStream> {
    match (is_string(parameter), parameter.slot) {
        (true, _) => Some(quote!(impl #typed::Text)),
        (false, Slot::Option("output_format")) => Some(quote!(::lumenfall::OutputFormat)),
        (false, _) => plain_type(parameter),
    }
}

/// Returns the code for a value that is known only at run time, if the parameter has a type for it.
pub(super) fn at_run_time(parameter: &Parameter) -> Option<String> {
    let (name, type_name) = (&parameter.name, names::camel(&parameter.name));
    let call = match (&parameter.kind, parameter.slot) {
        (_, Slot::Option("response_format")) => return None,
        (Kind::Choice(_), Slot::Extra) => format!("text.parse::<parameters::{type_name}>()?"),
        _ if parameter.is_required() => format!("parameters::{type_name}::new(value)?"),
        _ => format!(".try_{name}(value)?"),
    };
    Some(format!("`{call}` for a value known only at run time"))
}

/// Returns the supported values in words.
pub(super) fn range(model: &Model, kind: &Kind) -> Option<String> {
    Some(match (kind, model.max_size) {
        (Kind::Size, Some(max)) => format!("pixels up to {}x{}, or an aspect ratio", max.width, max.height),
        (Kind::Size, None) => "pixels, or an aspect ratio".into(),
        (Kind::AspectRatio, _) => "an aspect ratio such as `16:9`".into(),
        (Kind::Resolution, _) => "a tier such as `1K`".into(),
        (Kind::Integer { minimum, maximum, .. }, _) => format!("{minimum} to {maximum}"),
        (Kind::Number { minimum: f64::MIN, maximum: f64::MAX }, _) => "any number".into(),
        (Kind::Number { minimum, maximum: f64::MAX }, _) => format!("{minimum} or more"),
        (Kind::Number { minimum: f64::MIN, maximum }, _) => format!("at most {maximum}"),
        (Kind::Number { minimum, maximum }, _) => format!("{minimum} to {maximum}"),
        (Kind::Text { max_length: Some(max) }, _) => format!("text of at most {max} characters"),
        (Kind::Choice(choices), _) => text::or(choices),
        (Kind::Text { max_length: None } | Kind::Boolean | Kind::File { .. }, _) => return None,
    })
}

pub(super) fn parameters(model: &Model) -> TokenStream {
    let types = model.parameters.iter().filter_map(|parameter| match &parameter.kind {
        Kind::Choice(choices) => choice_enum(model, parameter, choices),
        _ => newtype(model, parameter),
    });
    quote! {
        /// Checked values of parameters. `literal!` checks a value at compile time, `new` and `parse` check it at run time.
        pub mod parameters {
            #(#types)*
        }
    }
}

fn newtype(model: &Model, parameter: &Parameter) -> Option<TokenStream> {
    let plain = plain_type(parameter)?;
    let argument = new_argument(parameter, &quote!(super::typed))?;
    let Parameter { name, kind, .. } = parameter;
    let type_name = format_ident!("{}", names::camel(name));
    let range = range(model, kind).map_or_else(String::new, |range| format!(": {range}"));
    let doc = text::doc(&format!("Checked value of `{name}`{range}."));
    let literal = literal(model, parameter);
    let json = match kind {
        Kind::Integer { .. } | Kind::Number { .. } => quote!(value.into()),
        _ if is_string(parameter) => quote!(value.as_str().into()),
        _ => quote!(value.to_string().into()),
    };
    let (derives, inner, into, get) = if is_string(parameter) {
        let get = quote!(
            #[must_use]
            pub fn get(self) -> #plain {
                self.0.into_owned()
            }
        );
        let into = quote!(let value = value.into_text(););
        (quote!(Clone, Debug, PartialEq), quote!(::std::borrow::Cow<'static, str>), Some(into), get)
    } else {
        let get = quote!(
            #[must_use]
            pub const fn get(self) -> #plain {
                self.0
            }
        );
        (quote!(Clone, Copy, Debug, PartialEq), plain.clone(), None, get)
    };
    let wrapped = if is_string(parameter) { quote!(value.into()) } else { quote!(value) };
    Some(quote! {
        #doc
        #[derive(#derives)]
        pub struct #type_name(#inner);

        impl #type_name {
            #literal

            /// Checks a value that is known only at run time.
            ///
            /// # Errors
            /// [`InvalidRequest`](lumenfall::ErrorKind::InvalidRequest) if the model does not support the value.
            pub fn new(value: #argument) -> ::core::result::Result<Self, ::lumenfall::Error> {
                #into
                super::SCHEMA.check_value(#name, &#json)?;
                ::core::result::Result::Ok(Self(#wrapped))
            }

            /// Returns the plain value.
            #get
        }
    })
}

/// Emits the enum of a parameter. `response_format` has none, because it selects the type of the result.
fn choice_enum(model: &Model, parameter: &Parameter, choices: &[String]) -> Option<TokenStream> {
    let name = &parameter.name;
    let type_name = format_ident!("{}", names::camel(name));
    let variants = choices.iter().map(|choice| {
        let variant = text::ident(&names::type_name(choice));
        quote!(#variant = #choice)
    });
    let format = match parameter.slot {
        Slot::Option("response_format") => return None,
        Slot::Option(_) => {
            let arms = choices.iter().map(|choice| {
                let variant = text::ident(&names::type_name(choice));
                quote!(#type_name::#variant => Self::#variant,)
            });
            Some(quote! {
                impl ::core::convert::From<#type_name> for ::lumenfall::OutputFormat {
                    fn from(value: #type_name) -> Self {
                        match value {
                            #(#arms)*
                        }
                    }
                }
            })
        }
        _ => None,
    };
    let value = model.has_value_types(parameter).then(|| {
        let module = text::ident(name);
        quote! {
            impl super::#module::Value for #type_name {
                fn value(self) -> Self {
                    self
                }
            }
        }
    });
    Some(quote! {
        ::lumenfall::choice! {
            super::SCHEMA, #name; #type_name { #(#variants),* }
        }

        #format
        #value
    })
}

/// Emits the constructor that `literal!` calls at compile time.
fn literal(model: &Model, parameter: &Parameter) -> Option<TokenStream> {
    let name = &parameter.name;
    let range = range(model, &parameter.kind).unwrap_or_default();
    let (input, body) = match &parameter.kind {
        Kind::Text { max_length } => {
            let max = max_length.map_or(quote!(usize::MAX), statics::length);
            let required = parameter.is_required();
            let text = quote!(super::typed::text(#name, value, #max, #range, #required));
            (quote!(&'static str), quote!(::std::borrow::Cow::Borrowed(#text)))
        }
        Kind::Size => {
            let max = model.max_size.map(|max| format!("at most {}x{}", max.width, max.height)).unwrap_or_default();
            (quote!(&'static str), quote!(super::typed::size(#name, value, super::SCHEMA.max_size, #max)))
        }
        Kind::AspectRatio => (quote!(&'static str), quote!(super::typed::aspect_ratio(#name, value))),
        Kind::Resolution => (quote!(&'static str), quote!(super::typed::resolution(#name, value))),
        Kind::Integer { minimum, maximum, rust } => {
            let (minimum, maximum) = (statics::integer(*minimum), statics::integer(*maximum));
            let function = format_ident!("integer_{rust}");
            (quote!(i128), quote!(super::typed::#function(#name, value, source, #minimum, #maximum, #range)))
        }
        Kind::Number { minimum, maximum } => {
            let (minimum, maximum) = (statics::float(*minimum), statics::float(*maximum));
            (quote!(f64), quote!(super::typed::number(#name, value, source, #minimum, #maximum, #range)))
        }
        Kind::Choice(_) | Kind::Boolean | Kind::File { .. } => return None,
    };
    let source = match parameter.kind {
        Kind::Integer { .. } | Kind::Number { .. } => quote!(source),
        _ => quote!(_),
    };
    Some(quote! {
        #[doc(hidden)]
        #[must_use]
        #[track_caller]
        pub const fn literal(value: #input, #source: &str) -> Self {
            Self(#body)
        }
    })
}

/// Emits a module with one type for each value, for each parameter whose value is part of the builder's type.
pub(super) fn choices(model: &Model) -> TokenStream {
    let modules = model.parameters.iter().filter_map(|parameter| match &parameter.kind {
        Kind::Choice(choices) if model.has_value_types(parameter) => Some(value_types(model, parameter, choices)),
        _ => None,
    });
    quote!(#(#modules)*)
}

fn value_types(model: &Model, parameter: &Parameter, choices: &[String]) -> TokenStream {
    let Parameter { name, .. } = parameter;
    let module = text::ident(name);
    let type_names: Vec<_> = choices.iter().map(|choice| names::type_name(choice)).collect();
    let list = text::or(&type_names);
    let doc = text::doc(&format!("The values of `{name}`."));
    let trait_doc = text::doc(&format!("A value of `{name}`: {list}."));
    let message = format!("`{{Self}}` is not a value of `{name}` of {}", text::escape(&model.name));
    let at_run_time = at_run_time(parameter).map_or_else(String::new, |call| format!(", or {call}"));
    let label = format!("write {list}{at_run_time}");
    let selects_delivery = parameter.slot == Slot::Option("response_format");
    let enum_name = text::ident(&names::camel(name));
    let plain = match selects_delivery {
        true => quote!(::lumenfall::ResponseFormat),
        false => quote!(super::parameters::#enum_name),
    };
    let delivery = selects_delivery.then(|| {
        quote! {
            /// How the response delivers the images.
            type Delivery: ::lumenfall::images::Delivery;
        }
    });
    let types = choices.iter().zip(&type_names).map(|(choice, type_name)| {
        let doc = text::doc(&format!("`{choice}`."));
        let type_name = text::ident(type_name);
        let delivery = selects_delivery.then(|| match choice.as_str() {
            "b64_json" => quote!(
                type Delivery = ::lumenfall::Inline;
            ),
            _ => quote!(
                type Delivery = ::lumenfall::Hosted;
            ),
        });
        quote! {
            #doc
            #[derive(Clone, Copy, Debug)]
            pub struct #type_name;

            impl Value for #type_name {
                #delivery

                fn value(self) -> #plain {
                    #plain::#type_name
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
                #delivery

                /// Returns the plain value.
                fn value(self) -> #plain;
            }

            #(#types)*
        }
    }
}
