//! MMDiT-X, the denoiser of Stable Diffusion 3.5: a transformer over image and text tokens that predicts the velocity of
//! the rectified flow from image to noise.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024). Stable Diffusion 3.5
//! Medium adds a second self-attention over the image to some blocks.

mod attention;
mod block;
mod embedding;
mod modulation;

use candle_core::Tensor;

use crate::config::DenoiserConfig;
use crate::error::Result;
use crate::ops::{Linear, Ops};
use crate::weights::Weights;
use block::Block;
use embedding::{PatchEmbedding, TimestepTextEmbedding};
use modulation::{NORM_EPS, chunks};

/// The denoiser.
#[derive(Debug)]
pub(crate) struct Mmdit {
    config: DenoiserConfig,
    patch_embedding: PatchEmbedding,
    timestep_text_embedding: TimestepTextEmbedding,
    context_embedder: Linear,
    blocks: Vec<Block>,
    norm_out: Linear,
    proj_out: Linear,
    ops: Ops,
}

impl Mmdit {
    pub(crate) fn load(weights: Weights, config: DenoiserConfig, ops: Ops) -> Result<Self> {
        let width = config.width();
        let patch = config.patch_size * config.patch_size * config.out_channels;
        let root = weights.root();
        let timestep_text_embedding = TimestepTextEmbedding::load(&root.at("time_text_embed"), &config)?;
        let context_embedder = Linear::load(&root.at("context_embedder"), config.joint_attention_dim, width)?;
        let blocks = (0..config.num_layers)
            .map(|i| Block::load(&root.at(format_args!("transformer_blocks.{i}")), &config, i))
            .collect::<Result<_>>()?;
        let norm_out = Linear::load(&root.at("norm_out.linear"), width, 2 * width)?;
        let proj_out = Linear::load(&root.at("proj_out"), width, patch)?;
        let patch_embedding = PatchEmbedding::load(weights, &config)?;
        Ok(Self { config, patch_embedding, timestep_text_embedding, context_embedder, blocks, norm_out, proj_out, ops })
    }

    /// Predicts the velocity of a latent `[channels, height, width]` at `timestep` (1000 * sigma), in the same shape.
    ///
    /// `context` is `[tokens, joint width]`, `pooled` is `[pooled width]`. `check_cancelled` is called before each block.
    pub(crate) fn forward(
        &self,
        latent: &Tensor,
        timestep: f32,
        context: &Tensor,
        pooled: &Tensor,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let (_, height, width) = latent.dims3()?;
        let (mut image, mut text, condition) = self.embed(latent, timestep, context, pooled)?;
        for block in &self.blocks {
            check_cancelled()?;
            (image, text) = block.forward(self.ops, &image, &text, &condition)?;
        }
        let modulation = self.ops.linear(&condition, &self.norm_out)?.squeeze(0)?;
        let [scale, shift] = chunks(&modulation)?;
        let image = self.ops.norm_modulate(&image, &shift, &scale, NORM_EPS)?;
        self.unpatchify(&self.ops.linear(&image, &self.proj_out)?, height, width)
    }

    /// Returns the image tokens, the text tokens and the input of every modulation `[1, width]`.
    fn embed(
        &self,
        latent: &Tensor,
        timestep: f32,
        context: &Tensor,
        pooled: &Tensor,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        Ok((
            self.patch_embedding.forward(self.ops, latent)?,
            self.ops.linear(context, &self.context_embedder)?,
            self.timestep_text_embedding.forward(self.ops, timestep, pooled)?,
        ))
    }

    /// Returns the image and text tokens before the first block and after each block.
    #[cfg(test)]
    pub(crate) fn trace(
        &self,
        latent: &Tensor,
        timestep: f32,
        context: &Tensor,
        pooled: &Tensor,
    ) -> Result<Vec<(Tensor, Tensor)>> {
        let (image, text, condition) = self.embed(latent, timestep, context, pooled)?;
        let mut states = vec![(image, text)];
        for block in &self.blocks {
            let (image, text) = &states[states.len() - 1];
            states.push(block.forward(self.ops, image, text, &condition)?);
        }
        Ok(states)
    }

    /// Converts `[tokens, patch * patch * channels]` to `[channels, height, width]`.
    fn unpatchify(&self, tokens: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (patch, channels) = (self.config.patch_size, self.config.out_channels);
        let (rows, columns) = (height / patch, width / patch);
        // [rows, columns, p, q, channels] -> [channels, rows, p, columns, q]
        let grid = tokens.reshape((rows, columns, patch, patch, channels))?.permute((4, 0, 2, 1, 3))?;
        Ok(grid.contiguous()?.reshape((channels, height, width))?)
    }

    pub(crate) fn config(&self) -> &DenoiserConfig {
        &self.config
    }
}
