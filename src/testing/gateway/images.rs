//! The images of the mock gateway and their prices.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::account::Received;
use super::delivery::{self, Delivery, SIGNATURE};
use super::http::{Form, Reply, Request, header, query};
use crate::backend::{EditSpec, GenerateSpec, Options};
use crate::generated;
use crate::images::{Input, OutputFormat, ResponseFormat};
use crate::testing::pixel::pixel;

/// Responds to the download of the image at `/files/{path}`.
pub(super) fn file(path: &str, request: &Request) -> Reply {
    if header(request, "authorization").is_some() {
        return Reply::invalid("send no API key to the URL of an image");
    }
    if query(request).get("signature").is_none_or(|signature| signature != SIGNATURE) {
        return Reply::error(403, "ACCESS_DENIED", "the signature is missing or wrong");
    }
    let extension = path.rsplit('.').next().unwrap_or_default();
    let format = serde_json::from_value(extension.into()).unwrap_or(OutputFormat::Png);
    let file = Reply::new(200, pixel(format)).header("content-type", format.media_type());
    // A client resumes a download only if there is a validator.
    file.header("etag", format!("\"{path}\""))
}

/// Changes the form so that it requests URLs instead of bytes, or bytes instead of URLs.
pub(super) fn swap_response_format(form: &mut Form) {
    let bytes = form.fields.get("response_format").and_then(Value::as_str) == Some("b64_json");
    form.fields.insert("response_format".into(), if bytes { "url" } else { "b64_json" }.into());
}

/// Executes a request, or returns an error response.
pub(super) fn execute(received: &Received, request: &Request, form: Form, address: SocketAddr) -> Result<Reply, Reply> {
    if header(request, "x-lumenfall-replay").is_some_and(|mode| mode != "off") {
        return Err(Reply::invalid("the mock gateway does not support the recorder"));
    }
    let Form { mut fields, files } = form;
    let model = fields.remove("model").and_then(|model| model.as_str().map(str::to_owned));
    let Some(model) = model.filter(|model| !model.is_empty()) else {
        return Err(Reply::invalid("`model` is missing; it is required"));
    };
    let partial_images = delivery::take_stream(&mut fields)?;
    let (provider, model) = match model.split_once('/') {
        Some((provider, model)) => (Some(provider.to_owned()), model.to_owned()),
        None => (None, model),
    };
    let schema = generated::schema(&model)
        .ok_or_else(|| Reply::error(404, "MODEL_NOT_FOUND", &format!("there is no model {model}")))?;
    let prompt = fields.remove("prompt").and_then(|prompt| prompt.as_str().map(str::to_owned));
    let mut options = Options { provider, ..Options::default() };
    for (name, value) in fields {
        // The fields of a form are text.
        let number = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let result = options.set(&name, value).or_else(|error| match number {
            Some(number) => options.set(&name, number),
            None => Err(error),
        });
        result.map_err(|error| Reply::invalid(&error.to_string()))?;
    }
    let Options { output_format, n, response_format, .. } = options;
    let format = output_format.unwrap_or(OutputFormat::Png);
    let (count, bytes) = (n.unwrap_or(1), response_format == Some(ResponseFormat::B64Json));
    let revised_prompt = prompt.clone();
    let estimate = if received.endpoint == "edits" {
        let (masks, images): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| name == "mask");
        let input = |(_, bytes)| Input::bytes(bytes);
        let images = images.into_iter().map(input).collect();
        let mask = masks.into_iter().next().map(input);
        schema.published_price(&EditSpec { model, images, mask, prompt, options })
    } else {
        schema.published_price(&GenerateSpec { model, prompt: prompt.unwrap_or_default(), options })
    };
    let estimate = estimate.map_err(|error| Reply::invalid(&error.to_string()))?;
    let price = estimate.total.micros.unsigned_abs();
    let provider = estimate.provider.unwrap_or_default();
    let executed_model = format!("{provider}/{}", schema.id);
    if query(request).get("dryRun").is_some_and(|value| value == "true") {
        let estimate = json!({
            "estimated": true, "model": executed_model, "provider": provider, "total_cost_micros": price,
            "currency": "USD"
        });
        return Ok(Reply::json(200, &estimate));
    }
    let metadata = json!({
        "model": schema.id, "executed_model": executed_model, "provider": provider, "cost": price as f64 / 1e6,
        "cost_currency": "USD"
    });
    let delivery = Delivery { received, address, format, count, bytes, prompt: revised_prompt, metadata };
    let reply = match partial_images {
        Some(number) => delivery.events(number),
        None => delivery.json(),
    };
    Ok(Reply { micros: price, ..reply })
}
