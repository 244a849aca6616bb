//! The answer to a dry run.

use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::answer;
use super::body::Body;
use super::failure::Failure;
use crate::backend::{Cost, Estimate};

#[derive(Deserialize)]
struct DryRun {
    total_cost_micros: Option<f64>,
    #[serde(default)]
    currency: Value,
    #[serde(default)]
    provider: Value,
    #[serde(default)]
    model: Value,
}

pub(super) async fn read(head: HeaderMap, body: Body) -> Result<Estimate, Failure> {
    let dry_run: DryRun = answer::paid_json(head, body).await?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    // A server that knows no dry run ignores the parameter, makes the images and bills them.
    let micros = dry_run.total_cost_micros.ok_or_else(|| {
        Failure::useless_answer(
            "the answer is no estimate: this server does not know the dry run, and may have made the images",
        )
    })?;
    Ok(Estimate {
        total: Cost {
            amount: micros / 1e6,
            currency: text(&dry_run.currency).unwrap_or_else(|| "USD".into()).to_ascii_uppercase(),
        },
        provider: text(&dry_run.provider),
        model: text(&dry_run.model),
    })
}
