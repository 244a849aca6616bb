//! The image autoencoder: pictures to latents and back.

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

/// The distribution of latents that a picture is encoded to; both `[channels, height, width]`.
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

    /// A latent as the denoiser makes it, `[channels, height, width]`, to a picture `[height·8, width·8, 3]` of values
    /// around −1 to 1. `check` runs between the layers.
    pub(crate) fn decode(&self, latent: &Tensor, check: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let latent = latent.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?;
        self.decoder.forward(self.ops, &latent.permute((1, 2, 0))?.contiguous()?, check)
    }

    /// A picture `[height, width, 3]` of values from −1 to 1 to a distribution of raw latents.
    pub(crate) fn encode(&self, picture: &Tensor, check: &dyn Fn() -> Result<()>) -> Result<Posterior> {
        let moments = self.encoder.forward(self.ops, picture, check)?.permute((2, 0, 1))?.contiguous()?;
        let channels = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.narrow(0, 0, channels)?,
            log_variance: moments.narrow(0, channels, channels)?.clamp(-30f32, 20f32)?,
        })
    }

    /// Raw latents as the denoiser takes them.
    pub(crate) fn normalize(&self, latent: &Tensor) -> Result<Tensor> {
        Ok(((latent - self.config.shift_factor)? * self.config.scaling_factor)?)
    }

    pub(crate) fn config(&self) -> &VaeConfig {
        &self.config
    }
}

impl Posterior {
    /// `mean + deviation·noise`, with `noise` in the latents' shape.
    pub(crate) fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = (&self.log_variance * 0.5)?.exp()?;
        Ok((&self.mean + (deviation * noise)?)?)
    }
}
