//! The fields of a request to an OpenAI-compatible server.

use serde_json::{Map, Value};

use crate::backend::{EditSpec, GenerateSpec, Options, Parameter};
use crate::error::{Error, ErrorKind};
use crate::images::typed::check;

/// The fields of a request by their names on the wire.
pub(crate) type Fields = Map<String, Value>;

/// Returns the fields of a generation.
pub(crate) fn generate(spec: GenerateSpec) -> Result<Fields, Error> {
    let GenerateSpec { model, prompt, options } = spec;
    // Servers of other models accept images in a generation. The spec has no field for them, so `extra` may contain them.
    fields(model, Some(prompt), options, &["image", "mask"])
}

/// Returns the fields of an edit, without its files.
pub(crate) fn edit(spec: &EditSpec) -> Result<Fields, Error> {
    let EditSpec { model, images: _, mask: _, prompt, options } = spec.clone();
    fields(model, prompt, options, &[])
}

/// `allowed` are names of typed parameters that `extra` may contain.
fn fields(model: String, prompt: Option<String>, options: Options, allowed: &[&str]) -> Result<Fields, Error> {
    let model = match &options.provider {
        Some(provider) => format!("{provider}/{model}"),
        None => model,
    };
    let mut fields = Fields::from_iter([("model".to_owned(), model.into())]);
    fields.extend(prompt.map(|prompt| ("prompt".to_owned(), prompt.into())));
    for Parameter { name, wire_name, value } in options.parameters() {
        if name == "skip_layer_guidance" {
            let message = "skip-layer guidance is supported by the local backend only (`Client::local`); remove it";
            return Err(Error::new(ErrorKind::Unsupported, message).with_parameter(name));
        }
        fields.insert(wire_name.to_owned(), finite(name, value)?);
    }
    for (name, value) in options.extra {
        if !allowed.contains(&&*name) {
            check_extra(&name, &["image[]"])?;
        }
        fields.insert(name, value);
    }
    Ok(fields)
}

/// Rejects an extra parameter that has a typed setter, under its name in a spec or one of the `reserved` names of the service.
/// If a parameter were sent twice, it would be undefined which value the service uses.
pub(crate) fn check_extra(name: &str, reserved: &[&str]) -> Result<(), Error> {
    check::check_extra(name)?;
    if reserved.contains(&name) {
        let message = format!("`{name}` has a typed setter and cannot be an extra parameter; use the setter");
        return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter(name));
    }
    Ok(())
}

/// Rejects the null that stands for a number that is not finite.
pub(crate) fn finite(name: &str, value: Value) -> Result<Value, Error> {
    match value {
        Value::Null => {
            Err(Error::new(ErrorKind::InvalidRequest, format!("`{name}` is not a finite number")).with_parameter(name))
        }
        value => Ok(value),
    }
}
