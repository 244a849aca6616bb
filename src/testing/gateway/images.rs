//! The images that the gateway makes, and what they cost.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::refusal;
use crate::ResponseFormat;
use crate::backend::{EditSpec, Estimate, GenerateSpec, Options};
use crate::error::Error;
use crate::generated;
use crate::images::typed::{Per, Schema, Spec};
use crate::images::{Input, OutputFormat};
use crate::testing::http::{Answer, Form, Request};
use crate::testing::pixel::pixel;

/// What an address must carry.
const SIGNATURE: &str = "lmnfl_mock_signature";

/// What was made of a request.
pub(super) struct Made {
    pub(super) answer: Answer,
    /// What it cost, in millionths of a dollar.
    pub(super) micros: u64,
}

/// The name of the request that made the image at `/files/` and this path.
pub(super) fn maker(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// The image at `/files/` and this path.
pub(super) fn file(path: &str, request: &Request) -> Answer {
    if request.header("authorization").is_some() {
        return refusal(400, "INVALID_REQUEST", "an address of an image takes no key");
    }
    if request.parameter("signature").as_deref() != Some(SIGNATURE) {
        return refusal(403, "ACCESS_DENIED", "the signature is missing or wrong");
    }
    let extension = path.rsplit('.').next().unwrap_or_default();
    let format = serde_json::from_value(extension.into()).unwrap_or(OutputFormat::Png);
    // Images are never changed.
    let tag = format!("\"{path}\"");
    Answer::new(200, pixel(format).to_vec()).header("content-type", format.media_type()).header("etag", &tag)
}

/// Asks for bytes where addresses were asked for, and the reverse.
pub(super) fn deliver_otherwise(form: &mut Form) {
    let bytes = form.fields.get("response_format").and_then(Value::as_str) == Some("b64_json");
    form.fields.insert("response_format".into(), if bytes { "url" } else { "b64_json" }.into());
}

/// The answer to the request of this `id`, or the refusal.
pub(super) fn made(
    id: &str,
    endpoint: &str,
    request: &Request,
    form: Form,
    address: SocketAddr,
) -> Result<Made, Answer> {
    let Form { mut fields, files } = form;
    let named = fields.remove("model").unwrap_or_default();
    let named = named.as_str().unwrap_or_default();
    let (provider, model) = match named.split_once('/') {
        Some((provider, model)) => (Some(provider.to_owned()), model.to_owned()),
        None => (None, named.to_owned()),
    };
    let schema = generated::schema(&model)
        .ok_or_else(|| refusal(404, "MODEL_NOT_FOUND", &format!("there is no model {model}")))?;
    let prompt = fields.remove("prompt").and_then(|prompt| prompt.as_str().map(str::to_owned));
    let options: Options = serde_json::from_value(fields.into()).map_err(|error| invalid(&error.to_string()))?;
    let options = Options { provider, ..options };
    let wanted = options.clone();
    let priced = match endpoint {
        "generations" => price(schema, &GenerateSpec { model, prompt: prompt.unwrap_or_default(), options }),
        "edits" => {
            let (masks, images): (Vec<_>, Vec<_>) = files.into_iter().partition(|(name, _)| name == "mask");
            let input = |(_, bytes): (String, Vec<u8>)| Input::bytes(bytes);
            let images = images.into_iter().map(input).collect();
            let mask = masks.into_iter().next().map(input);
            price(schema, &EditSpec { model, images, mask, prompt, options })
        }
        _ => return Err(refusal(404, "NOT_FOUND", "there is nothing here")),
    };
    let price = priced.map_err(|error| invalid(&error.to_string()))?;
    if request.parameter("dryRun").as_deref() == Some("true") {
        return Ok(Made { answer: dry_run(schema, &price), micros: 0 });
    }
    let micros = match request.header("x-lumenfall-replay") {
        None | Some("off" | "record" | "replay-or-live" | "replay-or-record") => price.micros(),
        Some("mock" | "replay-or-mock") => 0,
        Some("replay-or-error") => return Err(refusal(404, "RECORDING_NOT_FOUND", "nothing is recorded here")),
        Some(mode) => return Err(invalid(&format!("the recorder has no mode {mode}"))),
    };
    Ok(Made { answer: images(id, &wanted, schema, &price, micros, address), micros })
}

fn invalid(message: &str) -> Answer {
    refusal(400, "INVALID_REQUEST", message)
}

/// What a request costs, and at which provider.
struct Priced {
    provider: String,
    usd: f64,
}

impl Priced {
    fn micros(&self) -> u64 {
        (self.usd * 1e6).round() as u64
    }
}

fn price(schema: &Schema, spec: &impl Spec) -> Result<Priced, Error> {
    let Estimate { total, provider, .. } = schema.published_price(spec)?;
    Ok(Priced { provider: provider.unwrap_or_default(), usd: total.amount })
}

fn dry_run(schema: &Schema, priced: &Priced) -> Answer {
    let provider = &priced.provider;
    let price = schema.provider(provider).and_then(|provider| provider.price);
    let components = price.map(|price| {
        let metric = match price.per {
            Per::Image => "image",
            Per::Megapixel => "megapixel",
        };
        let quantity = priced.usd / price.usd;
        json!({
            "type": "output", "metric": metric, "quantity": quantity, "billable_quantity": quantity,
            "unit_price": price.usd, "total_cost": priced.micros()
        })
    });
    let total = json!({
        "estimated": true, "model": format!("{provider}/{}", schema.id), "provider": provider,
        "total_cost_micros": priced.micros(), "currency": "USD", "components": Vec::from_iter(components)
    });
    Answer::json(200, &total)
}

fn images(id: &str, wanted: &Options, schema: &Schema, priced: &Priced, micros: u64, address: SocketAddr) -> Answer {
    let provider = &priced.provider;
    let format = wanted.output_format.unwrap_or(OutputFormat::Png);
    let image = |index: u32| match wanted.response_format {
        Some(ResponseFormat::B64Json) => {
            json!({ "b64_json": base64_simd::STANDARD.encode_to_string(pixel(format)) })
        }
        _ => {
            let file = format!("{id}/{index}.{}", <&str>::from(format));
            json!({ "url": format!("http://{address}/files/{file}?signature={SIGNATURE}") })
        }
    };
    let executed = format!("{provider}/{}", schema.id);
    let metadata = json!({
        "model": schema.id, "executed_model": executed, "provider": provider, "cost": micros as f64 / 1e6,
        "cost_currency": "USD"
    });
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let data: Vec<_> = (0..wanted.n.unwrap_or(1)).map(image).collect();
    Answer::json(200, &json!({ "created": created, "data": data, "metadata": metadata }))
        .header("x-lumenfall-provider", provider)
        .header("x-lumenfall-model", &executed)
}
