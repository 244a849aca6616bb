//! A tiny decoder, which was trained to imitate that of the autoencoder: TAESD3 by Ollin Boer Bohan, `AutoencoderTiny` in diffusers.

use std::sync::Arc;

use crate::checkpoint::Part;
use crate::checkpoint::tiny_decoder::TinyDecoderConfig;
use crate::error::Result;
use crate::layers::{Activation, Conv2d, activate, add};
use crate::placement::Lazy;
use crate::tensor::Tensor;
use crate::weights::{Scope, Weights};

/// The number of times that the image is enlarged.
const LEVELS: usize = 3;

/// How many times larger an image is than its latent.
pub(crate) const SCALE: usize = 1 << LEVELS;

/// The number of images with the width of the layers that are in memory at once.
const IMAGES: u64 = 3;

/// A tiny decoder. Its weights are read when they are first needed, and stay in memory: they take 5 MB.
#[derive(Debug)]
pub(crate) struct TinyDecoder {
    layers: Lazy<Layers>,
    weights: Arc<Weights>,
    config: TinyDecoderConfig,
}

#[derive(Debug)]
struct Layers {
    conv_in: Conv2d,
    levels: Vec<Level>,
    last: Block,
    conv_out: Conv2d,
}

#[derive(Debug)]
struct Level {
    blocks: Vec<Block>,
    /// The convolution of the enlarged image.
    upsample: Conv2d,
}

/// Three convolutions with a residual connection.
#[derive(Debug)]
struct Block {
    first: Conv2d,
    second: Conv2d,
    third: Conv2d,
}

impl TinyDecoder {
    /// Checks the weights without reading them.
    pub(crate) fn open(Part { weights, config }: Part<TinyDecoderConfig>) -> Result<Self> {
        weights.check(|headers| Layers::load(headers, config).map(|_| ()))?;
        let weights = Arc::new(weights);
        let layers = {
            let weights = Arc::clone(&weights);
            Lazy::kept(move || Layers::load(&weights.root(), config))
        };
        Ok(Self { layers, weights, config })
    }

    /// Returns the memory for decoding an image, in bytes, with the weights.
    pub(crate) fn decoding_bytes(&self, width: u32, height: u32) -> u64 {
        let pixels = u64::from(width) * u64::from(height);
        self.weights.f32_bytes("") + 4 * IMAGES * self.config.width as u64 * pixels
    }

    /// Frees the memory of all weights. They are read again when they are needed.
    #[cfg(feature = "gpu")]
    pub(crate) fn forget(&self) {
        self.layers.forget();
    }

    /// Decodes a latent as [`Vae::decode`](super::Vae::decode) does.
    pub(crate) fn decode(&self, latent: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        // Unlike the autoencoder, it was trained with latents as the denoiser has them.
        let latent = latent.permute([1, 2, 0])?.map(|value| 3.0 * libm::tanhf(value / 3.0));
        let image = self.layers.get()?.forward(&latent, check_cancelled)?.on_cpu()?;
        Ok(image.map(|value| 2.0 * value - 1.0))
    }
}

impl Layers {
    fn load(root: &Scope<'_>, TinyDecoderConfig { latent_channels, width }: TinyDecoderConfig) -> Result<Self> {
        let level = |level: usize| {
            let first = 2 + 5 * level;
            Ok(Level {
                blocks: (first..first + 3).map(|index| Block::load(root, index, width)).collect::<Result<_>>()?,
                upsample: Conv2d::load_without_bias(&root.at(first + 4), width, width, 3)?,
            })
        };
        Ok(Self {
            conv_in: Conv2d::load(&root.at(0), latent_channels, width, 3)?,
            levels: (0..LEVELS).map(level).collect::<Result<_>>()?,
            last: Block::load(root, 17, width)?,
            conv_out: Conv2d::load(&root.at(18), width, 3, 3)?,
        })
    }

    /// Converts `[height, width, latent channels]` to `[height * 8, width * 8, 3]`.
    fn forward(&self, latent: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let mut x = activate(self.conv_in.forward(latent)?, Activation::Relu)?;
        for level in &self.levels {
            for block in &level.blocks {
                check_cancelled()?;
                x = block.forward(&x)?;
            }
            x = level.upsample.forward_upsampled(&x)?;
        }
        check_cancelled()?;
        self.conv_out.forward(&self.last.forward(&x)?)
    }
}

impl Block {
    fn load(root: &Scope<'_>, index: usize, width: usize) -> Result<Self> {
        let conv = |conv: usize| Conv2d::load(&root.at(format_args!("{index}.conv.{conv}")), width, width, 3);
        Ok(Self { first: conv(0)?, second: conv(2)?, third: conv(4)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut hidden = activate(self.first.forward(x)?, Activation::Relu)?;
        // The first result is freed before the third convolution.
        hidden = activate(self.second.forward(&hidden)?, Activation::Relu)?;
        activate(add(self.third.forward(&hidden)?, x)?, Activation::Relu)
    }
}
