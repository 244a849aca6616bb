//! The variational autoencoder (VAE), which converts images to latents and back.

mod blocks;
mod decoder;
mod encoder;

use candle_core::Tensor;

use crate::config::VaeConfig;
use crate::error::Result;
use crate::ops::Ops;
use crate::weights::Weights;
use decoder::Decoder;
use encoder::Encoder;

/// The image autoencoder.
#[derive(Debug)]
pub(crate) struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    config: VaeConfig,
    ops: Ops,
}

/// The distribution of an image's latent. Mean and log variance are `[channels, height, width]`.
#[derive(Debug)]
pub(crate) struct Posterior {
    pub(crate) mean: Tensor,
    pub(crate) log_variance: Tensor,
}

impl Vae {
    pub(crate) fn load(weights: &Weights, config: VaeConfig, ops: Ops) -> Result<Self> {
        let root = weights.root();
        let encoder = Encoder::load(&root.at("encoder"), &config)?;
        let decoder = Decoder::load(&root.at("decoder"), &config)?;
        Ok(Self { encoder, decoder, config, ops })
    }

    /// Decodes a normalized latent `[channels, height, width]` to an image `[height * 8, width * 8, 3]` with values from about
    /// −1 to 1. Calls `check_cancelled` between the layers.
    pub(crate) fn decode(&self, latent: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let latent = latent.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?;
        self.decoder.forward(self.ops, &latent.permute((1, 2, 0))?.contiguous()?, check_cancelled)
    }

    /// Encodes an image `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn encode(&self, image: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Posterior> {
        let moments = self.encoder.forward(self.ops, image, check_cancelled)?.permute((2, 0, 1))?.contiguous()?;
        let channels = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.narrow(0, 0, channels)?,
            log_variance: moments.narrow(0, channels, channels)?.clamp(-30f32, 20f32)?,
        })
    }

    /// Shifts and scales a latent of the encoder to the range that the denoiser expects.
    pub(crate) fn normalize(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(((latent - self.config.shift_factor)? * self.config.scaling_factor)?)
    }

    pub(crate) fn config(&self) -> &VaeConfig {
        &self.config
    }
}

impl Posterior {
    /// Returns `mean + deviation * noise`. `noise` has the shape of the mean.
    pub(crate) fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = (&self.log_variance * 0.5)?.exp()?;
        Ok((&self.mean + (deviation * noise)?)?)
    }
}
