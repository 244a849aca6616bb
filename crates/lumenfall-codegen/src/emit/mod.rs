//! The code of one model.

mod builder;
mod parameters;
mod rules;
mod statics;
mod text;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use crate::model::Model;
use crate::schema::Mode;

/// The file's items. `shorthands` says whether `size!` and its like are this model's.
pub(crate) fn module(model: &Model, shorthands: bool) -> TokenStream {
    let head = head(model);
    let statics = statics::schema(model);
    let builders = model.modes.iter().map(|&mode| builder::builder(model, mode));
    let choices = parameters::choices(model);
    let parameters = parameters::parameters(model, shorthands);
    let providers = rules::providers(model);
    let rules = rules::rules(model, shorthands);
    quote! {
        use ::lumenfall::images::typed;
        #head
        #(#builders)*
        #statics
        #choices
        #parameters
        #providers
        #rules
    }
}

fn head(model: &Model) -> TokenStream {
    let type_name = format_ident!("{}", model.type_name);
    let name = &model.name;
    let doc = text::doc(&match &model.creator {
        Some(creator) => format!("{name}, by {creator}."),
        None => format!("{name}."),
    });
    let requests_doc = text::doc(&format!("Where the requests to {name} start."));
    let starts = model.modes.iter().map(|&mode| start(model, mode));
    quote! {
        #doc
        #[derive(Clone, Copy, Debug)]
        pub enum #type_name {}

        impl typed::Model for #type_name {
            const SCHEMA: &'static typed::Schema = &SCHEMA;
            type Requests = Requests;

            fn requests(client: &::lumenfall::Client) -> Requests {
                Requests { client: ::core::clone::Clone::clone(client) }
            }
        }

        #requests_doc
        #[derive(Clone, Debug)]
        pub struct Requests {
            client: ::lumenfall::Client,
        }

        impl Requests {
            #(#starts)*
        }
    }
}

/// `generate` and `generate_spec`, or `edit` and `edit_spec`.
fn start(model: &Model, mode: Mode) -> TokenStream {
    let (method, spec, builder) = builder::names(mode);
    let spec_method = format_ident!("{method}_spec");
    let required: Vec<_> = builder::required(model, mode).collect();
    let arguments = required.iter().map(|parameter| {
        let (name, ty) = (text::ident(&parameter.name), parameters::argument(parameter));
        quote!(#name: #ty)
    });
    let sets = required.iter().map(|parameter| builder::assign(parameter, mode, &quote!(draft.spec_mut())));
    let mut doc = match mode {
        Mode::TextToImage => "Makes images.\n".to_string(),
        Mode::ImageEdit => "Changes images.\n".to_string(),
    };
    for parameter in &required {
        doc.push_str(&format!("\n- `{}`: {}.", parameter.name, text::sentence(&parameter.description)));
    }
    let doc = text::doc(&doc);
    let new = match mode {
        Mode::TextToImage => quote!(::lumenfall::backend::GenerateSpec::new(SCHEMA.id, "")),
        Mode::ImageEdit => quote!(::lumenfall::backend::EditSpec::new(SCHEMA.id, [])),
    };
    let mutable = (!required.is_empty()).then(|| quote!(mut));
    quote! {
        #doc
        pub fn #method(self, #(#arguments),*) -> #builder {
            let #mutable draft = typed::Draft::new(self.client, &SCHEMA, #new);
            #(#sets)*
            #builder { draft, state: ::core::marker::PhantomData }
        }

        /// The same from plain data, which is checked when it is sent.
        pub fn #spec_method(self, spec: ::lumenfall::backend::#spec) -> typed::Draft<::lumenfall::backend::#spec> {
            typed::Draft::new(self.client, &SCHEMA, spec)
        }
    }
}
