//! Models of full size with random weights, and measurements, for the repository's benchmarks.

mod configurations;
#[cfg(feature = "gpu")]
mod gpu;
mod make;
mod request;

use std::sync::{Mutex, PoisonError};

use lumenfall_kernels::{Matrix, Threads, Write, matmul};

use crate::checkpoint::Part;
use crate::checkpoint::config::DenoiserConfig;
use crate::error::Result;
use crate::lora::RandomLoras;
use crate::models::{Conditioning, Mmdit, Modulations, Omitted, Vae};
use crate::sampling::Generator;
use crate::tensor::Tensor;
use crate::weights::Weights;
use configurations::Configurations;
#[cfg(feature = "gpu")]
pub use gpu::{GpuTimes, measure_gpu};
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
    loras: RandomLoras,
}

impl Denoiser {
    /// Creates a denoiser of `blocks` blocks for an image of `size`×`size` pixels.
    pub fn new(blocks: usize, size: usize, format: ModelFormat) -> Result<Self> {
        Self::with_loras(blocks, size, format, 0, 0)
    }

    /// Creates a denoiser with LoRAs of all linear layers of its blocks, at first with a strength of 0.
    pub fn with_loras(blocks: usize, size: usize, format: ModelFormat, loras: usize, rank: usize) -> Result<Self> {
        let config = DenoiserConfig {
            num_layers: blocks,
            dual_attention_layers: (0..blocks.div_ceil(2)).collect(),
            ..Configurations::full().denoiser()?
        };
        let loras = RandomLoras::new(loras, rank);
        let mut weights = Weights::random_in(format.of_matrices());
        for (layer, outputs, inputs) in linear_layers(blocks, config.width()) {
            let adapters = loras.adapters(&layer, outputs, inputs);
            weights.adapters.insert(layer, adapters);
        }
        let denoiser = Mmdit::open(Part { weights, config })?;
        denoiser.keep_blocks(blocks);
        let conditioning = Conditioning { context: normal(&[TEXT_TOKENS, 4096])?, pooled: normal(&[1, 2048])? };
        let context = denoiser.embed_context(&conditioning)?;
        let modulations = denoiser.modulations(&[(500.0, &conditioning.pooled)], &|| Ok(()))?;
        Ok(Self { denoiser, latent: normal(&[16, size / 8, size / 8])?, context, modulations, loras })
    }

    /// Sets the strength of the LoRAs.
    pub fn set_strength(&self, strength: f32) {
        self.loras.set_strength(strength);
    }

    /// Returns the number of floating-point operations of the blocks in one forward pass.
    pub fn operations(&self) -> f64 {
        let config = self.denoiser.config();
        let (width, blocks) = (config.width() as f64, config.num_layers as f64);
        let image = (self.latent.len() / config.in_channels / (config.patch_size * config.patch_size)) as f64;
        let text = TEXT_TOKENS as f64;
        let second = config.dual_attention_layers.len() as f64;
        // Queries, keys, values, output and an MLP of four times the width. The last block computes only the first three of
        // the text.
        let linear = 12.0 * blocks * (image + text) - 9.0 * text + 4.0 * second * image;
        let attention = blocks * (image + text).powi(2) + second * image.powi(2);
        2.0 * linear * width * width + 4.0 * attention * width
    }

    /// Computes one forward pass.
    pub fn run(&self) -> Result<()> {
        let omitted = Omitted::default();
        self.denoiser.forward(&self.latent, &self.context, &self.modulations, 0, omitted, &|| Ok(())).map(|_| ())
    }
}

/// Returns the names, outputs and inputs of the linear layers of the first blocks. A block without the second self-attention
/// ignores its layers, and the last block those of the text after the attention.
fn linear_layers(blocks: usize, width: usize) -> impl Iterator<Item = (String, usize, usize)> {
    const SQUARE: [&str; 12] = [
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "attn2.to_q",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.to_out.0",
    ];
    const UP: [&str; 2] = ["ff.net.0.proj", "ff_context.net.0.proj"];
    const DOWN: [&str; 2] = ["ff.net.2", "ff_context.net.2"];
    (0..blocks).flat_map(move |block| {
        let square = SQUARE.map(|layer| (layer, width, width)).into_iter();
        let mlp =
            UP.map(|layer| (layer, 4 * width, width)).into_iter().chain(DOWN.map(|layer| (layer, width, 4 * width)));
        square
            .chain(mlp)
            .map(move |(layer, outputs, inputs)| (format!("transformer_blocks.{block}.{layer}"), outputs, inputs))
    })
}

/// The largest matrix product of the denoiser: 1357 tokens, 1536 inputs and 6144 outputs.
#[derive(Debug)]
pub struct Product {
    x: Vec<f32>,
    weight: Vec<f32>,
    out: Mutex<Vec<f32>>,
}

impl Product {
    const SHAPE: [usize; 3] = [1357, 1536, 6144];

    /// The number of floating-point operations.
    pub const OPERATIONS: f64 = 2.0 * 1357.0 * 1536.0 * 6144.0;

    /// Creates a product of random matrices.
    #[allow(clippy::new_without_default, reason = "there is no default product")]
    pub fn new() -> Self {
        let [tokens, inputs, outputs] = Self::SHAPE;
        let random = |count| Generator::new(0).normal(count);
        Self {
            x: random(tokens * inputs),
            weight: random(inputs * outputs),
            out: Mutex::new(vec![0.0; tokens * outputs]),
        }
    }

    /// Computes the product on all threads.
    pub fn run(&self) {
        let [tokens, inputs, outputs] = Self::SHAPE;
        let x = Matrix::row_major(&self.x, tokens, inputs, inputs);
        let weight = Matrix::row_major(&self.weight, inputs, outputs, outputs);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        matmul(&mut out, outputs, Write::Replace, 1.0, x, weight, Threads::All);
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
