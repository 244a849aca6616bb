//! The builder of one mode.

use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

use super::{parameters, rules, text};
use crate::model::{Kind, Model, Parameter, Slot};
use crate::names;
use crate::schema::{Mode, Need};

/// The method that starts a request, its spec's type and its builder's.
pub(super) fn names(mode: Mode) -> (Ident, Ident, Ident) {
    let (method, spec, builder) = match mode {
        Mode::TextToImage => ("generate", "GenerateSpec", "Generate"),
        Mode::ImageEdit => ("edit", "EditSpec", "Edit"),
    };
    (text::ident(method), text::ident(spec), text::ident(builder))
}

pub(super) fn required(model: &Model, mode: Mode) -> impl Iterator<Item = &Parameter> {
    model.parameters.iter().filter(move |parameter| parameter.need(mode) == Some(Need::Required))
}

/// The parameters that only the other mode has.
pub(super) fn absent(model: &Model, mode: Mode) -> impl Iterator<Item = &Parameter> {
    model.parameters.iter().filter(move |parameter| parameter.need(mode).is_none())
}

/// Writes an argument into the field of the spec that keeps it.
pub(super) fn assign(parameter: &Parameter, mode: Mode, spec: &TokenStream) -> TokenStream {
    let value = parameters::plain(parameter);
    let some = |value| quote!(::core::option::Option::Some(#value));
    match parameter.slot {
        Slot::Prompt if mode == Mode::TextToImage => quote!(#spec.prompt = #value;),
        Slot::Prompt => {
            let value = some(value);
            quote!(#spec.prompt = #value;)
        }
        Slot::Image if matches!(parameter.kind, Kind::File { repeatable: false }) => {
            quote!(#spec.images = ::std::vec![#value];)
        }
        Slot::Image => {
            let name = text::ident(&parameter.name);
            quote!(#spec.images = typed::Inputs::into_inputs(#name);)
        }
        Slot::Mask => {
            let value = some(value);
            quote!(#spec.mask = #value;)
        }
        Slot::Option(field) => {
            let (field, value) = (text::ident(field), some(value));
            quote!(#spec.options.#field = #value;)
        }
        Slot::Sampling(field) => {
            let field = text::ident(field);
            let value = some(match field.to_string().as_str() {
                "guidance" | "strength" => quote!(#value as f32),
                _ => value,
            });
            quote!(#spec.options.sampling.#field = #value;)
        }
        Slot::Extra => {
            let name = &parameter.name;
            quote!(#spec.options.extra.insert(#name.into(), #value.into());)
        }
    }
}

fn state(parameter: &str) -> Ident {
    format_ident!("{}State", names::camel(parameter))
}

/// The builder's type, with some of its states replaced.
fn builder_type(model: &Model, mode: Mode, answer: &TokenStream, replaced: &[(Ident, TokenStream)]) -> TokenStream {
    let (_, _, builder) = names(mode);
    let states = model.states(mode).map(|parameter| {
        let state = state(&parameter.name);
        match replaced.iter().find(|(name, _)| *name == state) {
            Some((_, other)) => other.clone(),
            None => quote!(#state),
        }
    });
    quote!(#builder<#answer, #(#states),*>)
}

pub(super) fn builder(model: &Model, mode: Mode) -> TokenStream {
    let (_, spec, builder) = names(mode);
    let spec = quote!(::lumenfall::backend::#spec);
    let states: Vec<_> = model.states(mode).map(|parameter| state(&parameter.name)).collect();
    let doc = text::doc(&match mode {
        Mode::TextToImage => {
            format!("Text to image with {}.\n\nIts type remembers what rules out later calls.", model.name)
        }
        Mode::ImageEdit => format!("An edit with {}.\n\nIts type remembers what rules out later calls.", model.name),
    });
    let setters = model
        .parameters
        .iter()
        .filter(|parameter| parameter.need(mode) == Some(Need::Optional))
        .map(|parameter| setter(model, mode, parameter));
    let absent = absent(model, mode).map(|parameter| {
        let (name, rule) = (text::ident(&parameter.name), rules::absent(&parameter.name, mode));
        quote! {
            #[doc(hidden)]
            pub fn #name<T: rules::#rule>(self, _: T) -> Self {
                self
            }
        }
    });
    let answers = answers(model, mode);
    let pin = (!model.providers.is_empty()).then(|| {
        let runs = rules::runs(mode);
        quote! {
            /// Pins a provider, which gives up the gateway's automatic failover.
            pub fn pin(mut self, provider: impl rules::#runs) -> Self {
                self.draft.spec_mut().options.provider = ::core::option::Option::Some(provider.slug().into());
                self
            }
        }
    });
    let shared = shared(model, mode);
    quote! {
        #doc
        #[derive(Clone, Debug)]
        #[must_use = "a request does nothing until it is sent"]
        pub struct #builder<Answer = ::lumenfall::Address, #(#states = typed::Unset),*> {
            draft: typed::Draft<#spec, Answer>,
            state: ::core::marker::PhantomData<fn() -> (#(#states,)*)>,
        }

        impl<Answer, #(#states),*> #builder<Answer, #(#states),*> {
            #(#setters)*
            #answers
            #pin
            ::lumenfall::shared_methods! { #spec; #(#shared)* }
            #(#absent)*
        }
    }
}

/// The shared setters that the model's own parameters leave room for.
fn shared(model: &Model, mode: Mode) -> Vec<Ident> {
    [
        ("user", "user"),
        ("seed", "seed"),
        ("steps", "num_inference_steps"),
        ("guidance", "guidance_scale"),
        ("negative_prompt", "negative_prompt"),
        ("strength", "strength"),
    ]
    .into_iter()
    .filter(|(setter, wire)| model.parameter(setter).is_none() && model.parameter(wire).is_none())
    .map(|(setter, _)| match (setter, mode) {
        ("strength", Mode::TextToImage) => text::ident("no_strength"),
        _ => text::ident(setter),
    })
    .collect()
}

fn answers(model: &Model, mode: Mode) -> TokenStream {
    let Some(parameter) = model.parameter("response_format").filter(|parameter| parameter.need(mode).is_some()) else {
        return TokenStream::new();
    };
    let Kind::Choice(choices) = &parameter.kind else { return TokenStream::new() };
    let (_, _, builder) = names(mode);
    let methods = choices.iter().map(|choice| {
        let (method, answer, doc) = match choice.as_str() {
            "b64_json" => ("inline", quote!(::lumenfall::Inline), "Asks for the images' bytes inside the answer."),
            _ => ("addresses", quote!(::lumenfall::Address), "Asks for temporary addresses of the images."),
        };
        let (method, doc) = (text::ident(method), text::doc(doc));
        let to = builder_type(model, mode, &answer, &[]);
        quote! {
            #doc
            pub fn #method(self) -> #to {
                #builder { draft: self.draft.answered(), state: ::core::marker::PhantomData }
            }
        }
    });
    quote!(#(#methods)*)
}

fn setter(model: &Model, mode: Mode, parameter: &Parameter) -> TokenStream {
    let name = text::ident(&parameter.name);
    let doc = documentation(model, parameter);
    if parameter.slot == Slot::Option("response_format") {
        let (_, _, builder) = names(mode);
        let to = builder_type(model, mode, &quote!(Format::Answer), &[]);
        return quote! {
            #doc
            pub fn response_format<Format: response_format::Value>(self, _: Format) -> #to {
                #builder { draft: self.draft.answered(), state: ::core::marker::PhantomData }
            }
        };
    }

    let mut bounds = Vec::new();
    let mut replaced = Vec::new();
    let tracked = model.states(mode).any(|state| state.name == parameter.name);
    let mut argument = parameters::argument(parameter);
    let mut generic = None;
    if tracked {
        let (state, free) = (state(&parameter.name), rules::free(&parameter.name));
        bounds.push(quote!(#state: rules::#free));
        if matches!(parameter.kind, Kind::Choice(_)) {
            // The value itself becomes the state: other parameters ask for it.
            generic = Some(quote!(<Choice: #name::Value>));
            argument = quote!(Choice);
            replaced.push((state, quote!(Choice)));
        } else {
            replaced.push((state, quote!(typed::Given)));
        }
    }
    for other in model.overriders(&parameter.name).filter(|other| other.need(mode).is_some()) {
        let (state, free) = (state(&other.name), rules::free(&parameter.name));
        bounds.push(quote!(#state: rules::#free));
        replaced.push((state, quote!(typed::Excluded)));
    }
    for (other, _) in &parameter.requires {
        let (state, needs) = (state(other), rules::needs(&parameter.name, other));
        bounds.push(quote!(#state: rules::#needs));
    }
    let bounds = (!bounds.is_empty()).then(|| quote!(where #(#bounds),*));
    let assign = assign(parameter, mode, &quote!(self.draft.spec_mut()));
    let (to, end) = if replaced.is_empty() {
        (quote!(Self), quote!(self))
    } else {
        let (_, _, builder) = names(mode);
        let to = builder_type(model, mode, &quote!(Answer), &replaced);
        (to, quote!(#builder { draft: self.draft, state: ::core::marker::PhantomData }))
    };
    let twin = twin(parameter, &to, bounds.as_ref());
    quote! {
        #doc
        pub fn #name #generic(mut self, #name: #argument) -> #to #bounds {
            #assign
            #end
        }

        #twin
    }
}

/// The setter's twin for a value that is known only at run time.
fn twin(parameter: &Parameter, to: &TokenStream, bounds: Option<&TokenStream>) -> Option<TokenStream> {
    let plain = match &parameter.kind {
        Kind::Text { .. } => quote!(impl ::core::convert::Into<::std::string::String>),
        kind => parameters::plain_type(kind)?,
    };
    let name = text::ident(&parameter.name);
    let method = format_ident!("try_{name}");
    let type_name = text::ident(&names::camel(&parameter.name));
    let doc = text::doc(&format!(
        "`{name}` of a value known only at run time.\n\n# Errors\nWhere the value breaks a rule of the model's schema."
    ));
    Some(quote! {
        #doc
        pub fn #method(self, #name: #plain) -> ::core::result::Result<#to, ::lumenfall::Error> #bounds {
            ::core::result::Result::Ok(self.#name(parameters::#type_name::new(#name)?))
        }
    })
}

fn documentation(model: &Model, parameter: &Parameter) -> TokenStream {
    let mut doc = format!("{}.\n", text::sentence(&parameter.description));
    let mut line = |text: String| doc.push_str(&format!("\n{text}."));
    if let Kind::Choice(choices) = &parameter.kind {
        let types: Vec<_> = choices.iter().map(|choice| names::type_name(choice)).collect();
        line(format!("A value of the module [`{0}`]: {1}", parameter.name, text::or(&types)));
    } else if parameters::plain_type(&parameter.kind).is_some() {
        line(format!("It takes {}", parameters::range(model, &parameter.kind)));
    }
    if !parameter.media_types.is_empty() {
        line(format!("It takes {}", text::or(&parameter.media_types)));
    }
    if let Some(default) = &parameter.default {
        line(format!("The default is `{default}`"));
    }
    if !parameter.overrides.is_empty() {
        line(format!("It cannot be combined with {}", text::or(&parameter.overrides)));
    }
    for other in model.overriders(&parameter.name) {
        line(format!("It cannot be combined with `{}`", other.name));
    }
    for (other, values) in &parameter.requires {
        line(format!("It needs `{other}` to be {}", text::or(values)));
    }
    text::doc(&doc)
}
