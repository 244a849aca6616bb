//! Emits the Rust code of one model.

mod builder;
mod parameters;
mod requests;
mod rules;
mod statics;
mod text;

use proc_macro2::TokenStream;
use quote::quote;

use crate::model::Model;

/// Returns the items of the generated file. If `shorthands` is set, messages recommend `size!`, `count!` and the other
/// short macros, which exist for one model only.
pub(crate) fn module(model: &Model, shorthands: bool) -> TokenStream {
    let requests = requests::requests(model);
    let builder = builder::builder(model);
    let schema = statics::schema(model);
    let choices = parameters::choices(model);
    let parameters = parameters::parameters(model);
    let providers = rules::providers(model);
    let rules = rules::rules(model, shorthands);
    quote! {
        use ::lumenfall::images::typed;
        #requests
        #builder
        #schema
        #choices
        #parameters
        #providers
        #rules
    }
}
