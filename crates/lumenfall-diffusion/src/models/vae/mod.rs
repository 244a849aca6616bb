//! The variational autoencoder (VAE), which converts images to latents and back.

mod blocks;
mod decoder;
mod encoder;
mod tiny;

use std::sync::Arc;

use crate::checkpoint::Part;
use crate::checkpoint::config::VaeConfig;
use crate::error::Result;
use crate::placement::Lazy;
use crate::tensor::Tensor;
use crate::weights::layout::PartKind;
use crate::weights::{PartSummary, Weights};
use decoder::Decoder;
use encoder::Encoder;
pub(crate) use tiny::{SCALE as TINY_SCALE, TinyDecoder};

/// The number of images with the channels of the highest resolution that are in memory at once. Measured: 2.5.
const IMAGES: u64 = 3;

/// The memory of the scores of the attention on a GPU, or of the bands of an image that are read and written, in bytes.
#[cfg(feature = "gpu")]
const GPU_BYTES: u64 = 128 << 20;

/// The image autoencoder.
#[derive(Debug)]
pub(crate) struct Vae {
    encoder: Lazy<Encoder>,
    decoder: Lazy<Decoder>,
    weights: Arc<Weights>,
    config: VaeConfig,
}

/// The distribution of an image's latent. Mean and log variance are `[channels, height, width]`.
#[derive(Debug)]
pub(crate) struct Posterior {
    pub(crate) mean: Tensor,
    pub(crate) log_variance: Tensor,
}

impl Vae {
    /// Checks the weights without reading them.
    pub(crate) fn open(Part { weights, config }: Part<VaeConfig>) -> Result<Self> {
        weights.check(|headers| {
            Encoder::load(&headers.at("encoder"), &config)?;
            Decoder::load(&headers.at("decoder"), &config).map(|_| ())
        })?;
        let weights = Arc::new(weights);
        let encoder = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Lazy::new(move || Encoder::load(&weights.root().at("encoder"), &config))
        };
        let decoder = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Lazy::new(move || Decoder::load(&weights.root().at("decoder"), &config))
        };
        Ok(Self { encoder, decoder, weights, config })
    }

    /// Determines whether the decoder stays in memory between two images.
    pub(crate) fn keep_decoder(&self, keep: bool) {
        self.decoder.keep(keep);
    }

    pub(crate) fn summary(&self) -> PartSummary {
        PartSummary::new(PartKind::Vae, &self.weights)
    }

    /// Returns the size of the decoder in memory, in bytes.
    pub(crate) fn decoder_bytes(&self) -> u64 {
        self.weights.f32_bytes("decoder.")
    }

    /// Returns whether the decoder is in memory.
    pub(crate) fn holds_decoder(&self) -> bool {
        self.decoder.is_in_memory()
    }

    /// Returns the memory for decoding an image, in bytes, with the decoder.
    pub(crate) fn decoding_bytes(&self, width: u32, height: u32, threads: usize) -> u64 {
        self.decoder_bytes() + self.image_bytes(width, height) + self.thread_bytes(threads)
    }

    /// Returns the memory for encoding an image, in bytes, with the encoder.
    pub(crate) fn encoding_bytes(&self, width: u32, height: u32, threads: usize) -> u64 {
        self.weights.f32_bytes("encoder.") + self.image_bytes(width, height) + self.thread_bytes(threads)
    }

    /// Returns the memory of a GPU for decoding an image, in bytes, with the decoder.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_decoding_bytes(&self, width: u32, height: u32) -> u64 {
        self.decoder_bytes() + self.gpu_image_bytes(width, height)
    }

    /// Returns the memory of a GPU for encoding an image, in bytes, with the encoder.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_encoding_bytes(&self, width: u32, height: u32) -> u64 {
        self.weights.f32_bytes("encoder.") + self.gpu_image_bytes(width, height)
    }

    #[cfg(feature = "gpu")]
    fn gpu_image_bytes(&self, width: u32, height: u32) -> u64 {
        self.image_bytes(width, height) + GPU_BYTES
    }

    /// Frees the memory of all weights. They are read again when they are needed.
    #[cfg(feature = "gpu")]
    pub(crate) fn forget(&self) {
        self.decoder.forget();
        self.encoder.forget();
    }

    /// Returns the memory of threads for the convolutions with the most channels.
    fn thread_bytes(&self, threads: usize) -> u64 {
        let channels = self.config.block_out_channels.iter().copied().max().unwrap_or(0);
        threads as u64 * lumenfall_kernels::convolution_bytes(channels, channels)
    }

    /// Returns the memory for the largest layers, which have the full size of the image.
    fn image_bytes(&self, width: u32, height: u32) -> u64 {
        let channels = self.config.block_out_channels.first().copied().unwrap_or(0) as u64;
        4 * IMAGES * channels * u64::from(width) * u64::from(height)
    }

    /// Decodes a normalized latent `[channels, height, width]` to an image `[height * 8, width * 8, 3]` with values from about
    /// −1 to 1. Calls `check_cancelled` between the layers.
    pub(crate) fn decode(&self, latent: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let (scale, shift) = (self.config.scaling_factor as f32, self.config.shift_factor as f32);
        let latent = latent.permute([1, 2, 0])?.map(|value| value / scale + shift);
        self.decoder.get()?.forward(&latent, check_cancelled)
    }

    /// Encodes an image `[height, width, 3]` with values from −1 to 1.
    pub(crate) fn encode(&self, image: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Posterior> {
        self.posterior(&*self.encoder.get()?, image, check_cancelled)
    }

    /// Encodes several images, for which the encoder is read once.
    pub(crate) fn encode_all(
        &self,
        images: impl Iterator<Item = Result<Tensor>>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Vec<Posterior>> {
        let encoder = self.encoder.get()?;
        images.map(|image| self.posterior(&encoder, &image?, check_cancelled)).collect()
    }

    fn posterior(
        &self,
        encoder: &Encoder,
        image: &Tensor,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Posterior> {
        let moments = encoder.forward(image, check_cancelled)?.permute([2, 0, 1])?.on_cpu()?;
        let channels = self.config.latent_channels;
        Ok(Posterior {
            mean: moments.rows(0..channels)?,
            log_variance: moments.rows(channels..2 * channels)?.map(|value| value.clamp(-30.0, 20.0)),
        })
    }

    /// Shifts and scales a latent of the encoder to the range that the denoiser expects.
    pub(crate) fn normalize(&self, latent: Tensor) -> Tensor {
        let (scale, shift) = (self.config.scaling_factor as f32, self.config.shift_factor as f32);
        latent.map(|value| (value - shift) * scale)
    }

    pub(crate) fn config(&self) -> &VaeConfig {
        &self.config
    }
}

impl Posterior {
    /// Returns `mean + deviation * noise`. `noise` has the shape of the mean.
    pub(crate) fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = self.log_variance.clone().map(|value| (value * 0.5).exp());
        deviation
            .zip_with(noise, |deviation, noise| deviation * noise)?
            .zip_with(&self.mean, |value, mean| mean + value)
    }
}
