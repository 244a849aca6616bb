//! What holds for a request to either provider, in its own words: what is refused, and what is added.

use serde_json::{Map, Value};

use super::fields;
use crate::backend::{Cost, Options};
use crate::error::{Error, ErrorKind};
// The one model that the direct backends run.
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;

/// That a provider cannot honour `parameter`, and what to do.
pub(super) fn unsupported(provider: &str, parameter: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{provider} does not take `{parameter}`; {remedy}"))
        .with_parameter(parameter)
}

/// Refuses each of `given` that is there.
pub(super) fn refuse(provider: &str, given: &[(&str, bool)]) -> Result<(), Error> {
    match given.iter().find(|(_, given)| *given) {
        Some((parameter, _)) => Err(unsupported(provider, parameter, "leave it out, or use the gateway")),
        None => Ok(()),
    }
}

/// Refuses a model or a pinned provider other than this one.
pub(super) fn check_model(provider: &str, model: &str, options: &Options) -> Result<(), Error> {
    if model != SCHEMA.id {
        return Err(unsupported(provider, "model", &format!("this backend runs {} only", SCHEMA.id)));
    }
    match &options.provider {
        Some(pinned) if pinned != provider => Err(unsupported(provider, "provider", "pin the provider at the gateway")),
        _ => Ok(()),
    }
}

/// What `images` of so many megapixels cost at `provider`, by the published price.
pub(super) fn price(provider: &str, images: Option<u32>, megapixels: f64) -> Result<Cost, Error> {
    let price = SCHEMA.provider(provider).and_then(|provider| provider.price).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("no price of {provider} is known; look at its own pages"))
    })?;
    Ok(price.of(images.unwrap_or(1), megapixels))
}

/// Adds the extra parameters, but for those that have a function of their own under the provider's `own` names: what is
/// made, and what it costs, is told by the functions alone.
pub(super) fn add_extra(input: &mut Map<String, Value>, extra: Map<String, Value>, own: &[&str]) -> Result<(), Error> {
    for (name, value) in extra {
        fields::check_extra(&name, own)?;
        input.insert(name, value);
    }
    Ok(())
}
