//! The denoiser and the VAE decoder at full width with random weights, for the repository's benchmarks.

use crate::checkpoint::Part;
use crate::checkpoint::config::{DenoiserConfig, VaeConfig};
use crate::error::Result;
use crate::models::{Conditioning, Mmdit, Modulations, Vae};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::Weights;

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
        let config = VaeConfig {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 16,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 1.5305,
            shift_factor: 0.0609,
            use_quant_conv: false,
            use_post_quant_conv: false,
        };
        let vae = Vae::open(Part { weights: Weights::random(), config })?;
        vae.keep_decoder(true);
        Ok(Self { vae, latent: normal(&[16, size / 8, size / 8])? })
    }

    /// Decodes one latent.
    pub fn run(&self) -> Result<()> {
        self.vae.decode(&self.latent, &|| Ok(())).map(|_| ())
    }
}
