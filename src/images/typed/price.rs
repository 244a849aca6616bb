//! What a request costs by the schema's price table.

use super::{Per, Price, Provider, Schema, Spec};
use crate::backend::{Cost, Estimate, Options};
use crate::error::{Error, ErrorKind};
use crate::images::Size;

/// The sides of an image whose request does not say how large it is to be, as of the tier `1K`.
const SIDE: f64 = 1024.0;

impl Price {
    /// What so many images of so many megapixels (millions of pixels) each cost.
    pub fn of(&self, images: u32, megapixels: f64) -> Cost {
        let each = match self.per {
            Per::Image => self.usd,
            Per::Megapixel => self.usd * megapixels,
        };
        Cost { amount: each * f64::from(images), currency: "USD".into() }
    }
}

impl Schema {
    /// What `spec` costs by the published prices, computed here: at the provider that it pins, or else at the
    /// dearest that offers its mode, since the gateway chooses.
    ///
    /// Where a price goes by megapixels and `spec` names no pixels, the tier decides, and without one `1K` is
    /// assumed: 1024×1024. A provider may round up to whole megapixels, and prices change: the service itself is
    /// asked by [`Draft::estimate`](super::Draft::estimate).
    ///
    /// # Errors
    /// The first rule of the model that `spec` breaks, and [`ErrorKind::Unsupported`] where the schema has no price
    /// that applies.
    pub fn published_price(&self, spec: &impl Spec) -> Result<Estimate, Error> {
        spec.check(self)?;
        let (mode, options) = (spec.mode(), spec.options());
        let megapixels = self.megapixels(options);
        let asked = |provider: &&Provider| options.provider.as_deref().is_none_or(|pinned| pinned == provider.slug);
        let offers = self.providers.iter().filter(asked).filter(|provider| provider.modes.contains(&mode));
        let priced = offers
            .filter_map(|provider| Some((provider, provider.price.as_ref()?.of(options.n.unwrap_or(1), megapixels))));
        let dearest = priced.max_by(|(_, one), (_, other)| one.amount.total_cmp(&other.amount));
        let (provider, total) = dearest.ok_or_else(|| {
            let message = format!("the schema of {} has no price for {}; ask the service", self.name, mode.words());
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let (provider, model) = (Some(provider.slug.into()), provider.model.map(Into::into));
        Ok(Estimate { provider, model, ..Estimate::new(total) })
    }

    fn megapixels(&self, options: &Options) -> f64 {
        let pixels = match (options.size, options.resolution) {
            (Some(Size::Pixels { width, height }), _) => f64::from(width) * f64::from(height),
            (_, Some(tier)) => (f64::from(tier.kilopixels()) * SIDE).powi(2),
            _ => SIDE * SIDE,
        };
        let most = self.max_size.map_or(f64::INFINITY, |(width, height)| f64::from(width) * f64::from(height));
        pixels.min(most) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::{EditSpec, GenerateSpec, Options};
    use crate::generated::stable_diffusion_3_5_medium::SCHEMA;
    use crate::{ErrorKind, Input, Resolution};

    fn price(edit: impl FnOnce(&mut Options)) -> (f64, String) {
        let mut spec = GenerateSpec::new(SCHEMA.id, "a lighthouse");
        edit(&mut spec.options);
        let estimate = SCHEMA.published_price(&spec).unwrap();
        assert_eq!(estimate.total.currency, "USD");
        // In hundredths of a cent, so that sums of decimal fractions compare.
        ((estimate.total.amount * 1e4).round(), estimate.provider.unwrap())
    }

    #[test]
    fn the_dearest_provider_that_may_run_it_counts() {
        assert_eq!(price(|_| ()), (350.0, "replicate".into()));
        assert_eq!(price(|options| options.n = Some(10)), (3500.0, "replicate".into()));
        // 1.999396 megapixels at $0.02 are more than $0.035.
        assert_eq!(price(|options| options.size = "1414x1414".parse().ok()), (400.0, "fal".into()));
    }

    #[test]
    fn a_pinned_provider_counts_alone_by_its_own_unit() {
        let fal = |edit: fn(&mut Options)| {
            price(|options| {
                options.provider = Some("fal".into());
                edit(options);
            })
        };
        assert_eq!(fal(|_| ()), (210.0, "fal".into()));
        assert_eq!(fal(|options| options.size = "500x500".parse().ok()), (50.0, "fal".into()));
        assert_eq!(fal(|options| options.aspect_ratio = "16:9".parse().ok()), (210.0, "fal".into()));
        // A tier beyond the model's largest size counts as that.
        assert_eq!(fal(|options| options.resolution = Resolution::new(4).ok()), (400.0, "fal".into()));
    }

    #[test]
    fn an_edit_has_the_price_of_who_edits_and_a_broken_request_none() {
        let mut edit = EditSpec::new(SCHEMA.id, Input::bytes("x"));
        let estimate = SCHEMA.published_price(&edit).unwrap();
        assert_eq!(estimate.model.as_deref(), Some("stability-ai/stable-diffusion-3.5-medium"));
        edit.options.n = Some(11);
        assert_eq!(SCHEMA.published_price(&edit).unwrap_err().parameter(), Some("n"));
        edit.model = "another".into();
        assert_eq!(SCHEMA.published_price(&edit).unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}
