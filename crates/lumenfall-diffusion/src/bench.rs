//! The denoiser and the VAE decoder at full width with random weights, for the repository's benchmarks.

use candle_core::{Device, Tensor};

use crate::config::{DenoiserConfig, VaeConfig};
use crate::error::Result;
use crate::mmdit::Mmdit;
use crate::noise::Generator;
use crate::ops::Ops;
use crate::vae::Vae;
use crate::weights::Weights;

/// The default number of text tokens: 77 of CLIP and 256 of T5.
const TEXT_TOKENS: usize = 333;

fn normal(shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(Generator::new(0).normal(shape.iter().product()), shape, &Device::Cpu)?)
}

/// The first blocks of Stable Diffusion 3.5 Medium's denoiser. Half of them have the second self-attention.
#[derive(Debug)]
pub struct Denoiser {
    denoiser: Mmdit,
    latent: Tensor,
    context: Tensor,
    pooled: Tensor,
}

impl Denoiser {
    /// Creates a denoiser of `blocks` blocks for an image of `size`×`size` pixels.
    pub fn new(blocks: usize, size: usize) -> Result<Self> {
        let config = DenoiserConfig {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            out_channels: 16,
            num_layers: blocks,
            attention_head_dim: 64,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 2048,
            pos_embed_max_size: 384,
            dual_attention_layers: (0..blocks.div_ceil(2)).collect(),
            qk_norm: Some("rms_norm".into()),
        };
        Ok(Self {
            denoiser: Mmdit::load(Weights::random(&Device::Cpu), config, Ops::Fused)?,
            latent: normal(&[16, size / 8, size / 8])?,
            context: normal(&[TEXT_TOKENS, 4096])?,
            pooled: normal(&[2048])?,
        })
    }

    /// Computes one forward pass.
    pub fn run(&self) -> Result<()> {
        self.denoiser.forward(&self.latent, 500.0, &self.context, &self.pooled, &|| Ok(())).map(|_| ())
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
        let config = VaeConfig {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 16,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 1.5305,
            shift_factor: 0.0609,
        };
        let vae = Vae::load(&Weights::random(&Device::Cpu), config, Ops::Fused)?;
        Ok(Self { vae, latent: normal(&[16, size / 8, size / 8])? })
    }

    /// Decodes one latent.
    pub fn run(&self) -> Result<()> {
        self.vae.decode(&self.latent, &|| Ok(())).map(|_| ())
    }
}
