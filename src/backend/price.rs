//! Costs and estimates.

use serde::{Deserialize, Serialize};

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The amount in units of `currency`, such as dollars.
    pub amount: f64,
    /// The ISO 4217 code of the currency in upper case, such as `USD`.
    pub currency: String,
}

impl Cost {
    /// Returns a cost of 0 USD.
    pub fn nothing() -> Self {
        Self { amount: 0.0, currency: "USD".into() }
    }
}

/// The expected cost of a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Estimate {
    /// The total cost of all images.
    pub total: Cost,
    /// The provider whose price was used.
    pub provider: Option<String>,
    /// The model whose price was used.
    pub model: Option<String>,
    /// The items that add up to the total; empty if the service does not report them.
    pub components: Vec<EstimateComponent>,
}

/// An item of an [`Estimate`]. A field is `None` if the service does not report it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EstimateComponent {
    /// The kind of item, such as `output`.
    pub kind: Option<String>,
    /// The unit of the quantity, such as `megapixels`.
    pub metric: Option<String>,
    /// The quantity in this unit.
    pub quantity: Option<f64>,
    /// The billed quantity, which some providers round up.
    pub billable_quantity: Option<f64>,
    /// The price of one unit.
    pub unit_price: Option<Cost>,
    /// The cost of this item.
    pub total: Option<Cost>,
}

impl Estimate {
    /// Returns an estimate with this total and no other information.
    pub fn new(total: Cost) -> Self {
        Self { total, provider: None, model: None, components: Vec::new() }
    }
}
