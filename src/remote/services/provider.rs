//! What the direct provider backends share: their builders, rejections and prices.

use serde_json::{Map, Value};

use super::fields;
use crate::backend::Cost;
use crate::error::{Error, ErrorKind};
// The model that the direct backends run.
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;
use crate::images::typed::{Spec, View, check};

/// Returns the error for a parameter that a provider does not support.
pub(crate) fn unsupported(provider: &str, parameter: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{provider} does not support `{parameter}`; {remedy}"))
        .with_parameter(parameter)
}

/// Returns the error for a parameter that a provider has no equivalent of.
pub(crate) fn refused(provider: &str, parameter: &str) -> Error {
    unsupported(provider, parameter, "remove it, or use the gateway")
}

/// Rejects another model, the pinning of another provider, and requests that violate a rule of every model.
pub(crate) fn check(provider: &str, spec: &impl Spec) -> Result<(), Error> {
    let View { model, options, .. } = spec.view();
    if model != SCHEMA.id {
        return Err(unsupported(provider, "model", &format!("this backend runs {} only", SCHEMA.id)));
    }
    check::check_every_model(spec)?;
    match &options.provider {
        Some(pinned) if pinned != provider => {
            Err(unsupported(provider, "provider", "providers can be pinned with the gateway only"))
        }
        _ => Ok(()),
    }
}

/// Returns the published price of images with this many megapixels each.
pub(crate) fn price(provider: &str, images: Option<u32>, megapixels: f64) -> Result<Cost, Error> {
    let price = SCHEMA.provider(provider).and_then(|provider| provider.price).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("the price of {provider} is not known; see its website"))
    })?;
    Ok(price.of(images.unwrap_or(1), megapixels))
}

/// Adds the extra parameters. Parameters with a typed setter, listed by the provider's names in `typed`, are rejected: typed
/// setters alone decide what is generated and what it costs.
pub(crate) fn add_extra(
    input: &mut Map<String, Value>,
    extra: Map<String, Value>,
    typed: &[&str],
) -> Result<(), Error> {
    for (name, value) in extra {
        fields::check_extra(&name, typed)?;
        input.insert(name, value);
    }
    Ok(())
}

/// Defines the builder of a provider's backend, and the backend's constructors.
macro_rules! provider_builder {
    ($backend:ident, $builder:ident, $url:literal, $variable:literal) => {
        #[doc = concat!("Configures a [`", stringify!($backend), "`] backend. [`build`](Self::build) checks all settings.")]
        #[derive(Clone)]
        #[must_use]
        pub struct $builder {
            settings: Settings,
            poll_interval: Duration,
        }

        impl $builder {
            #[doc = concat!("Returns a builder with the API key from the environment variable `", $variable, "`.")]
            pub fn from_env() -> Self {
                Self { settings: SERVICE.settings_from_env(), ..Self::default() }
            }

            settings_methods!($url, $variable);

            /// Sets how often the status of a job is polled. The default is once per second.
            pub fn poll_interval(mut self, interval: Duration) -> Self {
                self.poll_interval = interval;
                self
            }

            /// Builds the backend.
            ///
            /// # Errors
            /// [`ErrorKind::Configuration`] if the API key is missing or contains characters that are not allowed in a
            /// header, or if the base URL, a header or the proxy is malformed.
            pub fn build(self) -> Result<$backend, Error> {
                let transport = self.settings.transport(&SERVICE, HeaderMap::new(), None)?;
                Ok($backend { transport, poll_interval: self.poll_interval })
            }
        }

        impl Default for $builder {
            fn default() -> Self {
                Self { settings: Settings::default(), poll_interval: job::POLL_INTERVAL }
            }
        }

        impl fmt::Debug for $builder {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.settings.debug(stringify!($builder), f)
            }
        }

        impl $backend {
            /// Returns a backend with the headers and the retry policy of a call.
            fn for_call(&self, context: &RequestContext) -> Result<Cow<'_, Self>, Error> {
                let transport = self.transport.for_call(context)?;
                Ok(transport.map_or(Cow::Borrowed(self), |transport| Cow::Owned(Self { transport, ..*self })))
            }

            /// Returns a builder.
            pub fn builder() -> $builder {
                $builder::default()
            }

            #[doc = concat!("Creates a backend with the API key from the environment variable `", $variable, "`.")]
            ///
            /// # Errors
            /// [`ErrorKind::Configuration`] if the key is missing or malformed.
            pub fn from_env() -> Result<Self, Error> {
                $builder::from_env().build()
            }
        }
    };
}
pub(crate) use provider_builder;
