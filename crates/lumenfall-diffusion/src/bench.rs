//! Models of full size with random weights, and measurements, for the repository's benchmarks.

mod configurations;
mod make;
mod request;

use crate::checkpoint::Part;
use crate::checkpoint::config::DenoiserConfig;
use crate::error::Result;
use crate::models::{Conditioning, Mmdit, Modulations, Vae};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::Weights;
use configurations::Configurations;
pub use make::{ModelFormat, make_weights};
pub use request::{Times, measure};

/// The default number of text tokens: 77 of CLIP and 256 of T5.
const TEXT_TOKENS: usize = 333;

fn normal(shape: &[usize]) -> Result<Tensor> {
    Tensor::new(Generator::new(0).normal(shape.iter().product()), shape)
}

/// The first blocks of Stable Diffusion 3.5 Medium's denoiser. Half of them have the second self-attention.
#[derive(Debug)]
pub struct Denoiser {
    denoiser: Mmdit,
    latent: Tensor,
    context: Tensor,
    modulations: Modulations,
}

impl Denoiser {
    /// Creates a denoiser of `blocks` blocks for an image of `size`×`size` pixels.
    pub fn new(blocks: usize, size: usize) -> Result<Self> {
        let config = DenoiserConfig {
            num_layers: blocks,
            dual_attention_layers: (0..blocks.div_ceil(2)).collect(),
            ..Configurations::full().denoiser()?
        };
        let denoiser = Mmdit::open(Part { weights: Weights::random(), config })?;
        denoiser.keep_blocks(blocks);
        let conditioning = Conditioning { context: normal(&[TEXT_TOKENS, 4096])?, pooled: normal(&[1, 2048])? };
        let context = denoiser.embed_context(&conditioning)?;
        let modulations = denoiser.modulations(&[(500.0, &conditioning.pooled)], &|| Ok(()))?;
        Ok(Self { denoiser, latent: normal(&[16, size / 8, size / 8])?, context, modulations })
    }

    /// Computes one forward pass.
    pub fn run(&self) -> Result<()> {
        self.denoiser.forward(&self.latent, &self.context, &self.modulations, 0, &[], &|| Ok(())).map(|_| ())
    }
}

/// The decoder of Stable Diffusion 3.5's image autoencoder.
#[derive(Debug)]
pub struct Decoder {
    vae: Vae,
    latent: Tensor,
}

impl Decoder {
    /// Creates a decoder for an image of `size`×`size` pixels.
    pub fn new(size: usize) -> Result<Self> {
        let config = Configurations::full().vae()?;
        let vae = Vae::open(Part { weights: Weights::random(), config })?;
        vae.keep_decoder(true);
        Ok(Self { vae, latent: normal(&[16, size / 8, size / 8])? })
    }

    /// Decodes one latent.
    pub fn run(&self) -> Result<()> {
        self.vae.decode(&self.latent, &|| Ok(())).map(|_| ())
    }
}
