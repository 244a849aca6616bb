//! What a request costs, and what it would cost.

use serde::{Deserialize, Serialize};

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount, in units of `currency`.
    pub amount: f64,
    /// The currency's three letters, in upper case.
    pub currency: String,
}

impl Cost {
    /// What is free costs nothing in any currency; this says so in USD.
    pub fn nothing() -> Self {
        Self { amount: 0.0, currency: "USD".into() }
    }
}

/// What a request would cost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// The whole cost.
    pub total: Cost,
    /// The provider it was estimated for.
    pub provider: Option<String>,
    /// The model it was estimated for.
    pub model: Option<String>,
    /// What the total is made of, where the service tells.
    pub components: Vec<EstimateComponent>,
}

/// A part of an [`Estimate`]. What the service does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EstimateComponent {
    /// What is paid for, such as `output`.
    pub kind: Option<String>,
    /// What it is counted in, such as `megapixels`.
    pub metric: Option<String>,
    /// How much of it there is.
    pub quantity: Option<f64>,
    /// How much of it is billed, where a provider rounds up.
    pub billable_quantity: Option<f64>,
    /// What one costs.
    pub unit_price: Option<Cost>,
    /// What the part costs.
    pub total: Option<Cost>,
}

impl Estimate {
    /// An estimate of `total`.
    pub fn new(total: Cost) -> Self {
        Self { total, provider: None, model: None, components: Vec::new() }
    }
}
