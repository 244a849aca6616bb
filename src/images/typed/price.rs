//! The price of a request, computed from the schema's price table.

use super::{Per, Price, Provider, Schema, Spec, View};
use crate::backend::{Cost, Estimate};
use crate::error::{Error, ErrorKind};
use crate::values::Size;

/// The side length that is assumed if a request sets no size: the resolution tier `1K`.
const SIDE: f64 = 1024.0;

impl Price {
    /// Returns the price of `images` images with `megapixels` million pixels each.
    pub fn of(&self, images: u32, megapixels: f64) -> Cost {
        let each = match self.per {
            Per::Image => self.usd,
            Per::Megapixel => self.usd * megapixels,
        };
        Cost::new(each * f64::from(images), "USD")
    }
}

impl Schema {
    /// Computes the price of a request from the published prices, without a network request. If the request pins no
    /// provider, returns the price of the most expensive provider that supports its mode, because the gateway selects the
    /// provider.
    ///
    /// For a price per megapixel, the number of pixels is that of `size` in pixels, or else of the resolution tier. If
    /// neither is set, 1024×1024 pixels are assumed. The actual price can differ, because a provider may round up to whole
    /// megapixels, and prices change. [`Draft::estimate`](super::Draft::estimate) asks the service.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if the request violates a rule of the model, and [`ErrorKind::Unsupported`] if the
    /// schema contains no price for it.
    pub fn published_price(&self, spec: &impl Spec) -> Result<Estimate, Error> {
        self.check(spec)?;
        let View { mode, options, .. } = spec.view();
        let pixels = match (options.size, options.resolution) {
            (Some(Size::Pixels { width, height }), _) => f64::from(width) * f64::from(height),
            (_, Some(tier)) => (f64::from(tier.kilopixels()) * SIDE).powi(2),
            _ => SIDE * SIDE,
        };
        let may_run = |provider: &&Provider| options.provider.as_deref().is_none_or(|pinned| pinned == provider.slug);
        let priced = self.providers_for(mode).filter(may_run).filter_map(|provider| {
            let price = provider.price.as_ref()?;
            Some((provider, price.of(options.n.unwrap_or(1), pixels / 1e6)))
        });
        let most_expensive = priced.max_by(|(_, one), (_, other)| one.micros.cmp(&other.micros));
        let (provider, total) = most_expensive.ok_or_else(|| {
            let message = format!("the schema of {} has no price for {}; call `estimate()`", self.name, mode.words());
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let (provider, model) = (Some(provider.slug.into()), provider.model.map(Into::into));
        Ok(Estimate { provider, model, ..Estimate::new(total) })
    }
}

#[cfg(test)]
mod tests {
    use crate::Input;
    use crate::backend::{EditSpec, GenerateSpec, Options};
    use crate::generated::stable_diffusion_3_5_medium::SCHEMA;

    #[test]
    fn the_price_is_that_of_the_pinned_or_else_the_most_expensive_provider() {
        type Change = fn(&mut Options);
        let cases: [(Option<&str>, Change, f64, &str); 7] = [
            (None, |_| (), 0.035, "replicate"),
            (None, |options| options.n = Some(10), 0.35, "replicate"),
            // 1.999396 megapixels at $0.02 cost more than $0.035.
            (None, |options| options.size = "1414x1414".parse().ok(), 0.03998792, "fal"),
            (Some("fal"), |_| (), 0.02097152, "fal"),
            (Some("fal"), |options| options.size = "500x500".parse().ok(), 0.005, "fal"),
            (Some("fal"), |options| options.aspect_ratio = "16:9".parse().ok(), 0.02097152, "fal"),
            (Some("fal"), |options| options.resolution = "2K".parse().ok(), 0.08388608, "fal"),
        ];
        for (pinned, change, amount, provider) in cases {
            let mut spec = GenerateSpec::new(SCHEMA.id, "a lighthouse");
            spec.options.provider = pinned.map(str::to_owned);
            change(&mut spec.options);
            let estimate = SCHEMA.published_price(&spec).unwrap();
            assert!((estimate.total.amount() - amount).abs() < 1e-6, "{estimate:?}");
            assert_eq!((&*estimate.total.currency, estimate.provider.as_deref()), ("USD", Some(provider)));
        }
    }

    #[test]
    fn an_edit_is_priced_by_a_provider_with_edits_and_an_invalid_request_has_no_price() {
        let mut edit = EditSpec::new(SCHEMA.id, Input::bytes("x"));
        let estimate = SCHEMA.published_price(&edit).unwrap();
        assert_eq!(estimate.model.as_deref(), Some("stability-ai/stable-diffusion-3.5-medium"));
        edit.options.n = Some(11);
        assert_eq!(SCHEMA.published_price(&edit).unwrap_err().parameter(), Some("n"));
    }
}
