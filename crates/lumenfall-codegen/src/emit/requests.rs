//! The model's type, and the methods that start a request.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::{parameters, text};
use crate::model::Model;
use crate::schema::{Mode, ModeNames};

pub(super) fn requests(model: &Model) -> TokenStream {
    let type_name = format_ident!("{}", model.type_name);
    let name = &model.name;
    let doc = text::doc(&match &model.creator {
        Some(creator) => format!("{name}, by {creator}."),
        None => format!("{name}."),
    });
    let requests_doc = text::doc(&format!("Entry point for requests to {name}."));
    let allow = text::schema_text();
    let starts = model.modes.iter().map(|&mode| start(model, mode));
    quote! {
        #doc
        #allow
        #[derive(Clone, Copy, Debug)]
        pub enum #type_name {}

        impl typed::Model for #type_name {
            const SCHEMA: &'static typed::Schema = &SCHEMA;
            type Requests = Requests;

            fn requests(backend: ::std::sync::Arc<dyn ::lumenfall::Backend>) -> Requests {
                Requests { backend }
            }
        }

        #requests_doc
        #allow
        #[derive(Clone, Debug)]
        pub struct Requests {
            backend: ::std::sync::Arc<dyn ::lumenfall::Backend>,
        }

        #allow
        impl Requests {
            #(#starts)*
        }
    }
}

/// Emits `generate` and `generate_spec`, or `edit` and `edit_spec`.
fn start(model: &Model, mode: Mode) -> TokenStream {
    let ModeNames { method, builder, spec, .. } = mode.names();
    let (builder, spec, spec_method) = (text::ident(builder), text::ident(spec), format_ident!("{method}_spec"));
    let method = text::ident(method);
    let required = model.required(mode);
    // An argument of the same name would be shadowed.
    let (draft, field) = match model.parameter("draft") {
        Some(_) => (quote!(draft_), quote!(draft: draft_)),
        None => (quote!(draft), quote!(draft)),
    };
    let arguments = required.iter().map(|parameter| {
        let (name, argument) = (text::ident(&parameter.name), parameters::argument(model, parameter));
        quote!(#name: #argument)
    });
    let assignments = required.iter().map(|parameter| parameters::assignment(model, parameter, Some(mode), &draft));
    let mut doc = match mode {
        Mode::TextToImage => "Returns a builder for a request that generates images.\n".to_string(),
        Mode::ImageEdit => "Returns a builder for a request that edits images.\n".to_string(),
    };
    for parameter in &required {
        doc.push_str(&format!("\n- `{}`: {}.", parameter.name, text::lower_case(&parameter.description)));
    }
    let doc = text::doc(&doc);
    let empty = match mode {
        Mode::TextToImage => quote!(""),
        Mode::ImageEdit => quote!([]),
    };
    let mutable = (!required.is_empty()).then(|| quote!(mut));
    quote! {
        #doc
        pub fn #method(self, #(#arguments),*) -> #builder {
            let #mutable #draft = typed::Draft::new(
                self.backend,
                &SCHEMA,
                ::lumenfall::backend::#spec::new(SCHEMA.id, #empty),
            );
            #(#assignments)*
            Builder { #field, state: ::core::marker::PhantomData }
        }

        /// Returns a request from plain data. It is checked against the model's schema when it is sent.
        #[must_use = "a request does nothing until it is sent"]
        pub fn #spec_method(self, spec: ::lumenfall::backend::#spec) -> typed::Draft<::lumenfall::backend::#spec> {
            typed::Draft::new(self.backend, &SCHEMA, spec)
        }
    }
}
