//! The answer to a dry run.

use serde::Deserialize;
use serde_json::Value;

use super::body::Body;
use super::failure::Failure;
use super::{json, lenient};
use crate::backend::{Cost, Estimate, EstimateComponent};

/// Of a dollar, or whatever the currency's unit is.
const MICROS: f64 = 1e6;

#[derive(Deserialize)]
struct DryRun {
    #[serde(default)]
    estimated: Value,
    #[serde(default)]
    total_cost_micros: Value,
    #[serde(default)]
    currency: Value,
    #[serde(default)]
    provider: Value,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    components: Value,
}

pub(super) async fn read(body: &mut Body<'_>) -> Result<Estimate, Failure> {
    let secrets = body.secrets;
    let dry_run: DryRun = json::paid(body).await?;
    let text = |value: &Value| value.as_str().map(|text| secrets.blot_key(text));
    // A server that knows no dry run ignores the parameter, makes the images and bills them.
    let micros = lenient::number(&dry_run.total_cost_micros).filter(|_| dry_run.estimated != false);
    let micros = micros.ok_or_else(|| {
        Failure::useless_answer(
            "the answer is no estimate: this server does not know the dry run, and may have made the images",
        )
    })?;
    let currency = text(&dry_run.currency).unwrap_or_else(|| "USD".into()).to_ascii_uppercase();
    let components = dry_run.components.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(Estimate {
        components: components.iter().map(|part| component(part, &currency, &text)).collect(),
        total: Cost { amount: micros / MICROS, currency },
        provider: text(&dry_run.provider),
        model: text(&dry_run.model),
    })
}

fn component(part: &Value, currency: &str, text: &impl Fn(&Value) -> Option<String>) -> EstimateComponent {
    let number = |name: &str| part.get(name).and_then(lenient::number);
    let cost = |amount| Cost { amount, currency: currency.to_owned() };
    EstimateComponent {
        kind: part.get("type").and_then(text),
        metric: part.get("metric").and_then(text),
        quantity: number("quantity"),
        billable_quantity: number("billable_quantity"),
        unit_price: number("unit_price").map(cost),
        total: number("total_cost").map(|micros| cost(micros / MICROS)),
    }
}
