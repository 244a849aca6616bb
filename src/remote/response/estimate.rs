//! The response to a dry run.

use serde_json::Value;

use super::body::Body;
use super::failure::Failure;
use super::{json, lenient};
use crate::backend::{Cost, Estimate, EstimateComponent};

/// Amounts are in millionths of the currency's unit.
const MICROS: f64 = 1e6;

pub(crate) async fn read(body: &mut Body<'_>) -> Result<Estimate, Failure> {
    let secrets = body.secrets;
    let dry_run = json::paid(body).await?;
    let text = |object: &Value, name: &str| lenient::text(object, name).map(|text| secrets.redact_key(text));
    // A server without dry runs ignores the parameter, produces the images and bills them. A negative total would let a
    // request pass every spend cap.
    let micros = dry_run.get("total_cost_micros").and_then(lenient::number);
    let micros = micros.filter(|micros| *micros >= 0.0 && dry_run.get("estimated") != Some(&false.into())).ok_or_else(|| {
        Failure::unusable_response(
            "the response is not an estimate: this server does not support dry runs, and may have produced the images",
        )
    })?;
    let currency = text(&dry_run, "currency").unwrap_or_else(|| "USD".into()).to_ascii_uppercase();
    let cost = |amount| Cost::new(amount, currency.clone());
    let component = |part: &Value| {
        let number = |name: &str| part.get(name).and_then(lenient::number);
        EstimateComponent {
            kind: text(part, "type"),
            metric: text(part, "metric"),
            quantity: number("quantity"),
            billable_quantity: number("billable_quantity"),
            unit_price: number("unit_price").map(cost),
            total: number("total_cost").map(|micros| cost(micros / MICROS)),
        }
    };
    Ok(Estimate {
        components: lenient::list(&dry_run, "components").iter().map(component).collect(),
        total: cost(micros / MICROS),
        provider: text(&dry_run, "provider"),
        model: text(&dry_run, "model"),
    })
}
