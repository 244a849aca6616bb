//! The schema as a `static`, for the checks at run time.

use proc_macro2::{Literal, TokenStream};
use quote::quote;

use super::text;
use crate::model::{Kind, Model, Parameter};
use crate::schema::{MaxResolution, Mode, Need, Per, Price};

pub(super) fn schema(model: &Model) -> TokenStream {
    let Model { id, name, json, .. } = model;
    let modes = modes(&model.modes);
    let max_size = max_size(model.max_size);
    let providers = model.providers.iter().map(|provider| {
        let (slug, name, modes) = (&provider.slug, &provider.name, self::modes(&provider.modes));
        let model = option(provider.model.as_ref().map(|model| quote!(#model)));
        let price = option(provider.price.as_ref().map(price));
        quote!(typed::Provider { slug: #slug, name: #name, model: #model, modes: #modes, price: #price })
    });
    let parameters = model.parameters.iter().map(|each| parameter(model, each));
    quote! {
        /// The model's parameter schema.
        pub static SCHEMA: typed::Schema = typed::Schema {
            id: #id,
            name: #name,
            modes: #modes,
            max_size: #max_size,
            providers: &[#(#providers),*],
            parameters: &[#(#parameters),*],
            json: #json,
        };
    }
}

fn max_size(max: Option<MaxResolution>) -> TokenStream {
    option(max.map(|MaxResolution { width, height }| {
        let (width, height) = (integer(width.into()), integer(height.into()));
        quote!((#width, #height))
    }))
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn price(price: &Price) -> TokenStream {
    let usd = float(price.usd);
    let per = match price.per {
        Per::Image => quote!(typed::Per::Image),
        Per::Megapixel => quote!(typed::Per::Megapixel),
    };
    quote!(typed::Price { usd: #usd, per: #per })
}

pub(super) fn integer(value: i128) -> TokenStream {
    let literal = readable(Literal::u128_unsuffixed(value.unsigned_abs()));
    if value.is_negative() { quote!(-#literal) } else { quote!(#literal) }
}

pub(super) fn float(value: f64) -> TokenStream {
    if value == f64::MAX {
        return quote!(f64::MAX);
    }
    if value == f64::MIN {
        return quote!(f64::MIN);
    }
    let literal = readable(Literal::f64_unsuffixed(value.abs()));
    if value.is_sign_negative() { quote!(-#literal) } else { quote!(#literal) }
}

/// Inserts underscores between groups of three digits, if the literal has more than five digits before or after the point.
fn readable(literal: Literal) -> Literal {
    let text = literal.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let is_short = |digits: &str| digits.len() <= 5;
    if is_short(whole) && is_short(fraction) || !text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return literal;
    }
    let mut readable = String::new();
    for (index, digit) in whole.char_indices() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            readable.push('_');
        }
        readable.push(digit);
    }
    for (index, digit) in fraction.char_indices() {
        readable.push_str(match index {
            0 => ".",
            index if index % 3 == 0 => "_",
            _ => "",
        });
        readable.push(digit);
    }
    readable.parse().unwrap_or(literal)
}

/// Emits a number of characters.
pub(super) fn length(value: usize) -> TokenStream {
    let literal = readable(Literal::usize_unsuffixed(value));
    quote!(#literal)
}

fn modes(modes: &[Mode]) -> TokenStream {
    let modes = modes.iter().map(|mode| match mode {
        Mode::TextToImage => quote!(typed::Mode::TextToImage),
        Mode::ImageEdit => quote!(typed::Mode::ImageEdit),
    });
    quote!(&[#(#modes),*])
}

fn parameter(model: &Model, parameter: &Parameter) -> TokenStream {
    let Parameter { name, media_types, .. } = parameter;
    let description = text::sentence(&parameter.description);
    let default = option(parameter.default.as_ref().map(|default| quote!(#default)));
    let overriders = model.overriders(name).map(|other| &other.name);
    let excludes = parameter.overrides.iter().chain(overriders);
    let kind = kind(&parameter.kind);
    let (text_to_image, image_edit) = (presence(parameter, Mode::TextToImage), presence(parameter, Mode::ImageEdit));
    let requires = parameter
        .requires
        .iter()
        .map(|(parameter, values)| quote!(typed::Requirement { parameter: #parameter, values: &[#(#values),*] }));
    quote! {
        typed::Parameter {
            name: #name,
            description: #description,
            kind: #kind,
            default: #default,
            media_types: &[#(#media_types),*],
            text_to_image: #text_to_image,
            image_edit: #image_edit,
            excludes: &[#(#excludes),*],
            requires: &[#(#requires),*],
        }
    }
}

fn presence(parameter: &Parameter, mode: Mode) -> TokenStream {
    match parameter.need(mode) {
        None => quote!(typed::Presence::Absent),
        Some(Need::Optional) => quote!(typed::Presence::Optional),
        Some(Need::Required) => quote!(typed::Presence::Required),
    }
}

fn kind(kind: &Kind) -> TokenStream {
    match kind {
        Kind::Text { max_length: None } => quote!(typed::Kind::Text { max_length: ::core::option::Option::None }),
        Kind::Text { max_length: Some(max) } => {
            let max = length(*max);
            quote!(typed::Kind::Text { max_length: ::core::option::Option::Some(#max) })
        }
        Kind::Choice(choices) => quote!(typed::Kind::Choice(&[#(#choices),*])),
        Kind::Size => quote!(typed::Kind::Size),
        Kind::AspectRatio => quote!(typed::Kind::AspectRatio),
        Kind::Resolution => quote!(typed::Kind::Resolution),
        Kind::Integer { minimum, maximum, .. } => {
            let (minimum, maximum) = (integer(*minimum), integer(*maximum));
            quote!(typed::Kind::Integer { minimum: #minimum, maximum: #maximum })
        }
        Kind::Number { minimum, maximum } => {
            let (minimum, maximum) = (float(*minimum), float(*maximum));
            quote!(typed::Kind::Number { minimum: #minimum, maximum: #maximum })
        }
        Kind::Boolean => quote!(typed::Kind::Boolean),
        Kind::File { repeatable } => quote!(typed::Kind::File { repeatable: #repeatable }),
    }
}
