//! The request builder: one type for both modes, with setters for one mode or for both.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{parameters, text};
use crate::model::{Kind, Model, Parameter, Slot};
use crate::names;
use crate::schema::{Mode, ModeNames, Need};

pub(super) fn builder(model: &Model) -> TokenStream {
    let (states, allow) = (states(model), text::schema_text());
    let doc = text::doc(&format!(
        "Builder for a request to {}.\n\nIts type parameters record which parameters are set, so that a forbidden \
         combination does not compile. To set parameters under a condition or in a loop, call `into_draft`.",
        model.name
    ));
    let aliases = model.modes.iter().map(|mode| {
        let ModeNames { builder, spec, words, .. } = mode.names();
        let (alias, spec) = (text::ident(builder), text::ident(spec));
        let doc = text::doc(&format!("Builder for {words} with {}. See [`Builder`] for its methods.", model.name));
        quote! {
            #doc
            #allow
            pub type #alias<Delivery = ::lumenfall::Hosted, #(#states = typed::Unset),*> =
                Builder<::lumenfall::backend::#spec, Delivery, #(#states),*>;
        }
    });
    let shared = shared_setters(model);
    let delivery = delivery(model);
    let setters = model.parameters.iter().filter(|parameter| is_common(model, parameter));
    let setters = setters.map(|parameter| setter(model, None, parameter));
    let modes = model.modes.iter().map(|&mode| mode_methods(model, mode));
    quote! {
        #doc
        #allow
        #[derive(Clone, Debug)]
        #[must_use = "a request does nothing until it is sent"]
        pub struct Builder<Spec, Delivery = ::lumenfall::Hosted, #(#states = typed::Unset),*> {
            draft: typed::Draft<Spec, Delivery>,
            state: ::core::marker::PhantomData<fn() -> (#(#states,)*)>,
        }

        #(#aliases)*

        #allow
        impl<Spec: typed::Spec, Delivery, #(#states),*> Builder<Spec, Delivery, #(#states),*> {
            #(#setters)*
            #delivery
            ::lumenfall::shared_methods! { Spec; #(#shared)* }
        }

        #(#modes)*
    }
}

fn states(model: &Model) -> Vec<Ident> {
    model.tracked().map(|parameter| state(&parameter.name)).collect()
}

fn state(parameter: &str) -> Ident {
    text::ident(&names::state(parameter))
}

/// Returns whether every mode has the same setter for `parameter`. The prompt and the files have fields of different
/// types in the two specs.
fn is_common(model: &Model, parameter: &Parameter) -> bool {
    !matches!(parameter.slot, Slot::Prompt | Slot::Image | Slot::Mask)
        && model.modes.iter().all(|&mode| parameter.need(mode) == Some(Need::Optional))
}

/// Returns the builder's type with the given delivery and with some of its states replaced.
fn builder_type(
    model: &Model,
    spec: &TokenStream,
    delivery: &TokenStream,
    replaced: &[(Ident, TokenStream)],
) -> TokenStream {
    let states = states(model).into_iter().map(|state| {
        let other = replaced.iter().find(|(name, _)| *name == state);
        other.map_or_else(|| quote!(#state), |(_, other)| other.clone())
    });
    quote!(Builder<#spec, #delivery, #(#states),*>)
}

/// Returns the type of the spec in `mode`, or the type parameter if the method is common to both modes.
fn spec_type(mode: Option<Mode>) -> TokenStream {
    match mode.map(|mode| text::ident(mode.names().spec)) {
        Some(spec) => quote!(::lumenfall::backend::#spec),
        None => quote!(Spec),
    }
}

/// Returns the setters of the library that do not collide with a parameter of the schema.
fn shared_setters(model: &Model) -> Vec<Ident> {
    let setters = [
        ("user", "user"),
        ("seed", "seed"),
        ("steps", "num_inference_steps"),
        ("guidance", "guidance_scale"),
        ("negative_prompt", "negative_prompt"),
    ];
    let free = setters.into_iter().filter(|(setter, wire_name)| has_no_parameter(model, setter, wire_name));
    free.map(|(setter, _)| text::ident(setter)).collect()
}

fn has_no_parameter(model: &Model, setter: &str, wire_name: &str) -> bool {
    model.parameter(setter).is_none() && model.parameter(wire_name).is_none()
}

/// Emits the methods of one mode.
fn mode_methods(model: &Model, mode: Mode) -> TokenStream {
    let (states, spec, allow) = (states(model), spec_type(Some(mode)), text::schema_text());
    let optional = model.parameters.iter().filter(|parameter| parameter.need(mode) == Some(Need::Optional));
    let setters =
        optional.filter(|parameter| !is_common(model, parameter)).map(|parameter| setter(model, Some(mode), parameter));
    let pin = (!model.providers.is_empty()).then(|| {
        let runs = text::ident(&names::runs(mode));
        quote! {
            /// Pins the request to a provider. This disables the gateway's automatic failover.
            pub fn pin(mut self, provider: impl rules::#runs) -> Self {
                self.draft.options_mut().provider = ::core::option::Option::Some(provider.slug().into());
                self
            }
        }
    });
    let strength = (mode == Mode::ImageEdit && model.parameter("strength").is_none())
        .then(|| quote!(::lumenfall::shared_methods! { @ strength }));
    let absent = model.absent(mode).map(|name| {
        let (name, rule) = (text::ident(name), text::ident(&names::absent(name, mode)));
        quote! {
            #[doc(hidden)]
            pub fn #name<T: rules::#rule>(self, _: T) -> Self {
                self
            }
        }
    });
    quote! {
        #allow
        impl<Delivery, #(#states),*> Builder<#spec, Delivery, #(#states),*> {
            #(#setters)*
            #pin
            #strength
            #(#absent)*
        }
    }
}

/// Emits `hosted` and `inline`, if the model has the parameter `response_format`.
fn delivery(model: &Model) -> TokenStream {
    let Some(Kind::Choice(choices)) = model.parameter("response_format").map(|parameter| &parameter.kind) else {
        return TokenStream::new();
    };
    let methods = choices.iter().map(|choice| {
        let (method, delivery, doc) = match choice.as_str() {
            "b64_json" => ("inline", quote!(::lumenfall::Inline), "Requests the images as bytes inside the response."),
            _ => ("hosted", quote!(::lumenfall::Hosted), "Requests the images as temporary URLs."),
        };
        let (method, doc) = (text::ident(method), text::doc(doc));
        let to = builder_type(model, &quote!(Spec), &delivery, &[]);
        quote! {
            #doc
            pub fn #method(self) -> #to {
                Builder { draft: self.draft.delivered_as(), state: ::core::marker::PhantomData }
            }
        }
    });
    quote!(#(#methods)*)
}

/// Emits the setter of an optional parameter, and its counterpart for values that are known only at run time. `mode` is `None`
/// if the setter is common to both modes.
fn setter(model: &Model, mode: Option<Mode>, parameter: &Parameter) -> TokenStream {
    let (name, doc, spec) = (text::ident(&parameter.name), documentation(model, parameter), spec_type(mode));
    if parameter.slot == Slot::Option("response_format") {
        let to = builder_type(model, &spec, &quote!(Format::Delivery), &[]);
        return quote! {
            #doc
            pub fn response_format<Format: response_format::Value>(self, _: Format) -> #to {
                Builder { draft: self.draft.delivered_as(), state: ::core::marker::PhantomData }
            }
        };
    }

    let mut bounds = Vec::new();
    let mut replaced = Vec::new();
    let mut argument = parameters::argument(model, parameter);
    let mut generic = None;
    let allowed = text::ident(&names::allowed(&parameter.name));
    let is_tracked = model.tracked().any(|tracked| tracked.name == parameter.name);
    let has_value_types = model.has_value_types(parameter);
    if is_tracked {
        let state = state(&parameter.name);
        bounds.push(quote!(#state: rules::#allowed));
        if has_value_types {
            // The type of the value becomes the state, because other parameters may require certain values.
            generic = Some(quote!(<Choice: #name::Value>));
            argument = quote!(Choice);
            replaced.push((state, quote!(Choice)));
        } else {
            replaced.push((state, quote!(typed::Set)));
        }
    }
    for other in model.overriders(&parameter.name) {
        let state = state(&other.name);
        bounds.push(quote!(#state: rules::#allowed));
        replaced.push((state, quote!(typed::Excluded)));
    }
    for (other, _) in &parameter.requires {
        let (state, requires) = (state(other), text::ident(&names::requires(&parameter.name, other)));
        bounds.push(quote!(#state: rules::#requires));
    }
    let bounds = (!bounds.is_empty()).then(|| quote!(where #(#bounds),*));
    let assignment = parameters::assignment(model, parameter, mode, &quote!(self.draft));
    let returned = |replaced: &[(Ident, TokenStream)]| match replaced {
        [] => quote!(Self),
        replaced => builder_type(model, &spec, &quote!(Delivery), replaced),
    };
    let to = returned(&replaced);
    let end = match replaced.as_slice() {
        [] => quote!(self),
        _ => quote!(Builder { draft: self.draft, state: ::core::marker::PhantomData }),
    };
    let checked_setter = parameters::new_argument(parameter, &quote!(typed)).map(|plain| {
        let method = format_ident!("try_{}", parameter.name);
        let type_name = text::ident(&names::camel(&parameter.name));
        if let Some((_, own)) = replaced.first_mut().filter(|_| is_tracked && has_value_types) {
            *own = quote!(parameters::#type_name);
        }
        let to = returned(&replaced);
        let doc = text::doc(&format!(
            "Sets `{}` to a value that is known only at run time.\n\n# Errors\n[`InvalidRequest`]\
             (lumenfall::ErrorKind::InvalidRequest) if the model does not support the value.",
            parameter.name
        ));
        let value = match parameter.kind {
            Kind::Choice(_) => quote!(<&str>::from(#name).parse::<parameters::#type_name>()?),
            _ => quote!(parameters::#type_name::new(#name)?),
        };
        quote! {
            #doc
            pub fn #method(self, #name: #plain) -> ::core::result::Result<#to, ::lumenfall::Error> #bounds {
                ::core::result::Result::Ok(self.#name(#value))
            }
        }
    });
    quote! {
        #doc
        pub fn #name #generic(mut self, #name: #argument) -> #to #bounds {
            #assignment
            #end
        }

        #checked_setter
    }
}

fn documentation(model: &Model, parameter: &Parameter) -> TokenStream {
    let mut doc = format!("Sets `{}`: {}.\n", parameter.name, text::lower_case(&parameter.description));
    let mut line = |text: String| doc.push_str(&format!("\n{text}."));
    if let Kind::Choice(choices) = &parameter.kind {
        let types: Vec<_> = choices.iter().map(|choice| names::type_name(choice)).collect();
        let (name, enum_name) = (&parameter.name, names::camel(&parameter.name));
        line(match (parameter.slot, model.has_value_types(parameter)) {
            (Slot::Option("response_format"), _) => {
                format!("Accepts the types of the module [`{name}`]: {}", text::or(&types))
            }
            (_, true) => format!(
                "Accepts the types of the module [`{name}`]: {}. Also accepts the enum [`parameters::{enum_name}`]",
                text::or(&types)
            ),
            (_, false) => format!("Accepts the values of [`parameters::{enum_name}`]: {}", text::or(&types)),
        });
    } else if let Some(range) = parameters::range(model, &parameter.kind) {
        line(format!("Accepts {range}"));
    }
    if !parameter.media_types.is_empty() {
        line(format!("Accepts {}", text::or(&parameter.media_types)));
    }
    if let Some(default) = &parameter.default {
        line(format!("The default is `{default}`"));
    }
    if !parameter.overrides.is_empty() {
        line(format!("Cannot be combined with {}", text::or(&parameter.overrides)));
    }
    for other in model.overriders(&parameter.name) {
        line(format!("Cannot be combined with `{}`", other.name));
    }
    for (other, values) in &parameter.requires {
        line(format!("Requires `{other}` to be {}", text::or(values)));
    }
    text::doc(&doc)
}
