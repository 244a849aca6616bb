//! Costs and estimates.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of money, in whole micro-units, so that sums are exact.
///
/// ```
/// use lumenfall::backend::Cost;
///
/// let cost = Cost::new(0.035, "USD");
/// assert_eq!(cost.micros, 35_000);
/// assert_eq!(cost.to_string(), "0.035 USD");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cost {
    /// The amount in millionths of the unit of `currency`: 35,000 for 3.5 cents in `USD`.
    pub micros: i64,
    /// The ISO 4217 code of the currency in upper case, such as `USD`.
    pub currency: String,
}

/// In micro-units. A smaller difference from a whole number is the rounding error of a floating-point number, as in 0.1 + 0.2.
const ROUNDING_ERROR: f64 = 1e-3;

impl Cost {
    /// Returns a cost in units of `currency`, such as dollars. The amount is rounded up to whole micro-units, so that a small
    /// price does not become 0. An amount that is not a number becomes 0.
    pub fn new(amount: f64, currency: impl Into<String>) -> Self {
        let exact = amount * 1e6;
        let nearest = exact.round();
        let micros = if (exact - nearest).abs() < ROUNDING_ERROR { nearest } else { exact.ceil() };
        // The conversion saturates, and converts NaN to 0.
        Self::from_micros(micros as i64, currency)
    }

    /// Returns a cost in millionths of the unit of `currency`.
    pub fn from_micros(micros: i64, currency: impl Into<String>) -> Self {
        Self { micros, currency: currency.into().to_ascii_uppercase() }
    }

    /// Returns a cost of 0 USD.
    pub fn nothing() -> Self {
        Self::from_micros(0, "USD")
    }

    /// Returns the amount in units of the currency, such as dollars.
    pub fn amount(&self) -> f64 {
        self.micros as f64 / 1e6
    }
}

/// Writes the amount with two to six decimals, such as `0.035 USD`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, micros) = (if self.micros < 0 { "-" } else { "" }, self.micros.unsigned_abs());
        let decimals = format!("{:06}", micros % 1_000_000);
        let (always, further) = decimals.split_at(2);
        let further = further.trim_end_matches('0');
        write!(f, "{sign}{}.{always}{further} {}", micros / 1_000_000, self.currency)
    }
}

/// The expected cost of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_rounded_up_to_micro_units_and_written_without_noise() {
        for (amount, micros, text) in [
            (0.0, 0, "0.00 USD"),
            (0.035, 35_000, "0.035 USD"),
            (0.1 + 0.2, 300_000, "0.30 USD"),
            (0.02097152, 20_972, "0.020972 USD"),
            (0.020_971_1, 20_972, "0.020972 USD"),
            (0.000_000_1, 1, "0.000001 USD"),
            (12.5, 12_500_000, "12.50 USD"),
            (1_234_567.891, 1_234_567_891_000, "1234567.891 USD"),
            (-0.005, -5_000, "-0.005 USD"),
            (f64::NAN, 0, "0.00 USD"),
            (f64::INFINITY, i64::MAX, "9223372036854.775807 USD"),
        ] {
            let cost = Cost::new(amount, "usd");
            assert_eq!((cost.micros, cost.to_string().as_str()), (micros, text), "{amount}");
        }
        // An amount with at most six decimals is exact.
        for micros in (-1_000_000_i32..1_000_000).step_by(7) {
            assert_eq!(Cost::new(f64::from(micros) / 1e6, "USD").micros, i64::from(micros));
        }
        let json = serde_json::to_value(Cost::new(0.035, "USD")).unwrap();
        assert_eq!(json, serde_json::json!({ "micros": 35_000, "currency": "USD" }));
    }
}
