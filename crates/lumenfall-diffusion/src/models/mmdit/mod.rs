//! MMDiT-X, the denoiser of Stable Diffusion 3.5: a transformer over image and text tokens that predicts the velocity of
//! the rectified flow from image to noise.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (2024). Stable Diffusion 3.5
//! Medium adds a second self-attention over the image to some blocks.

mod attention;
mod block;
mod embedding;
mod first_block_cache;
mod modulation;

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::Part;
use crate::checkpoint::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::layers::{Linear, norm_modulate};
use crate::placement::{Blocks, Lazy};
use crate::tensor::Tensor;
use crate::weights::layout::PartKind;
use crate::weights::{PartSummary, Scope, Weights};
use block::Block;
use embedding::{ConditionEmbedding, PatchEmbedding, Positions};
pub(crate) use first_block_cache::FirstBlockCache;
pub(crate) use modulation::Modulations;
use modulation::NORM_EPS;

/// The number of conditions whose modulation is computed at once: 64 MB in Stable Diffusion 3.5 Medium. More would save
/// little time, because the weights are then read only once for 16 steps with guidance.
pub(crate) const CONDITIONS: usize = 32;

/// The number of values for each token and channel that are on a GPU at once. Measured: 11.
#[cfg(feature = "gpu")]
const GPU_STREAMS: usize = 14;

/// The denoiser.
#[derive(Debug)]
pub(crate) struct Mmdit {
    config: DenoiserConfig,
    weights: Arc<Weights>,
    positions: Positions,
    ends: Lazy<Ends>,
    blocks: Blocks<Block>,
}

/// The layers before the first and after the last block.
#[derive(Debug)]
struct Ends {
    patches: PatchEmbedding,
    context: Linear,
    condition: ConditionEmbedding,
    output: Linear,
}

/// The blocks that a forward pass leaves out.
#[derive(Debug, Default)]
pub(crate) struct Omitted<'a> {
    /// The indices of blocks to leave out.
    pub(crate) skipped: &'a [usize],
    /// The cache that may replace all blocks after the first.
    pub(crate) cache: Option<&'a mut FirstBlockCache>,
}

/// The encoded prompt.
#[derive(Clone, Debug)]
pub(crate) struct Conditioning {
    /// `[tokens, joint width]`
    pub(crate) context: Tensor,
    /// `[1, pooled width]`
    pub(crate) pooled: Tensor,
}

impl Ends {
    fn load(root: &Scope<'_>, config: &DenoiserConfig) -> Result<Self> {
        let (width, patch) = (config.width(), config.patch_size * config.patch_size * config.out_channels);
        Ok(Self {
            patches: PatchEmbedding::load(root, config)?,
            context: Linear::load(&root.at("context_embedder"), config.joint_attention_dim, width)?,
            condition: ConditionEmbedding::load(root, config)?,
            output: Linear::load(&root.at("proj_out"), width, patch)?,
        })
    }
}

impl Mmdit {
    /// Checks the weights without reading them.
    pub(crate) fn open(Part { weights, config }: Part<DenoiserConfig>) -> Result<Self> {
        weights.check(|headers| {
            Ends::load(headers, &config)?;
            Modulations::check(headers, &config)?;
            (0..config.num_layers).try_for_each(|index| Block::load(headers, &config, index).map(|_| ()))
        })?;
        let weights = Arc::new(weights);
        let positions = Positions::open(Arc::clone(&weights), &config)?;
        let ends = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Lazy::kept(move || Ends::load(&weights.root(), &config))
        };
        let blocks = {
            let (weights, config) = (Arc::clone(&weights), config.clone());
            Blocks::new(config.num_layers, move |index, kept| {
                Block::load(&weights.root().streamed(!kept), &config, index)
            })
        };
        Ok(Self { config, weights, positions, ends, blocks })
    }

    /// Keeps the first `count` blocks in memory. The others are read for each forward pass.
    pub(crate) fn keep_blocks(&self, count: usize) {
        self.blocks.keep(count);
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    pub(crate) fn summary(&self) -> PartSummary {
        PartSummary::new(PartKind::Denoiser, &self.weights)
    }

    /// Returns the size of each block in memory, in bytes.
    pub(crate) fn block_bytes(&self) -> Vec<u64> {
        let bytes = |index| {
            let prefix = format!("transformer_blocks.{index}.");
            let modulation = self.weights.bytes(&format!("{prefix}norm1"));
            self.weights.bytes(&prefix) - modulation
        };
        (0..self.config.num_layers).map(bytes).collect()
    }

    /// Returns the size of the blocks in memory at present, in bytes.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        let sizes = self.block_bytes();
        self.blocks.in_memory().filter_map(|index| sizes.get(index)).sum()
    }

    /// Returns the memory of a forward pass for a number of image and text tokens, in bytes, besides the blocks.
    pub(crate) fn forward_bytes(&self, tokens: usize, threads: usize) -> u64 {
        let width = self.config.width();
        // In the joint attention: both streams, their queries, keys and values, the same of both together, the transposed keys,
        // and the result. The hidden layer of the MLP needs less.
        let streams = 11 * tokens * width;
        let scores = threads * lumenfall_kernels::ATTENTION_QUERIES * tokens;
        4 * (streams + scores) as u64
    }

    /// Returns the memory of what remains between forward passes, in bytes, besides the blocks.
    pub(crate) fn lasting_bytes(&self) -> u64 {
        // Only weights with LoRAs are read whole.
        let has_adapters = |prefix: &str| self.weights.adapters.keys().any(|layer| layer.starts_with(prefix));
        self.modulation_bytes(has_adapters) + self.ends_bytes()
    }

    /// Returns the size of the layers before and after the blocks, in bytes.
    fn ends_bytes(&self) -> u64 {
        let ends = ["pos_embed.proj", "context_embedder", "time_text_embed", "proj_out"];
        ends.map(|name| self.weights.bytes(name)).iter().sum()
    }

    /// Returns the part of that size which is in memory at present.
    pub(crate) fn ends_in_use(&self) -> u64 {
        if self.ends.is_in_memory() { self.ends_bytes() } else { 0 }
    }

    /// Returns the memory of the modulation of many steps, and of its largest weights in a block whose prefix is read, in bytes.
    fn modulation_bytes(&self, is_read: impl Fn(&str) -> bool) -> u64 {
        let modulations = CONDITIONS * self.config.num_layers * 15 * self.config.width();
        let prefixes = (0..self.config.num_layers).map(|index| format!("transformer_blocks.{index}.norm1"));
        let weights = prefixes.filter(|prefix| is_read(prefix)).map(|prefix| self.weights.bytes(&prefix)).max();
        4 * modulations as u64 + weights.unwrap_or(0)
    }

    /// Returns the memory of `count` first-block caches for a number of image tokens, in bytes.
    pub(crate) fn cache_bytes(&self, image_tokens: usize, count: usize) -> u64 {
        // Each has two tensors. During a forward pass there are also the tokens before and after the first block.
        (4 * (2 * count + 2) * image_tokens * self.config.width()) as u64
    }

    /// Returns the memory of a GPU for a number of image and text tokens, in bytes, besides the blocks.
    #[cfg(feature = "gpu")]
    pub(crate) fn gpu_working_bytes(&self, tokens: usize) -> u64 {
        let width = self.config.width();
        // The weights of the modulation are read one block after another.
        4 * (GPU_STREAMS * tokens * width) as u64 + self.modulation_bytes(|_| true) + self.ends_bytes()
    }

    /// Frees the memory of all weights. They are read again when they are needed.
    #[cfg(feature = "gpu")]
    pub(crate) fn forget(&self) {
        self.blocks.keep(0);
        self.ends.forget();
    }

    /// Projects the tokens of a prompt to the denoiser's width: `[tokens, width]`.
    pub(crate) fn embed_context(&self, conditioning: &Conditioning) -> Result<Tensor> {
        self.ends.get()?.context.forward(&conditioning.context)
    }

    /// Computes the modulation for pairs of a timestep (1000 * sigma) and a pooled prompt `[1, pooled width]`.
    pub(crate) fn modulations(
        &self,
        conditions: &[(f32, &Tensor)],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Modulations> {
        let ends = self.ends.get()?;
        let embed = |(timestep, pooled): &(f32, &Tensor)| ends.condition.forward(*timestep, pooled);
        let conditions = conditions.iter().map(embed).collect::<Result<Vec<_>>>()?;
        Modulations::new(&self.weights.root().streamed(true), &self.config, &conditions, check_cancelled)
    }

    /// Predicts the velocity of a latent `[channels, height, width]`, in the same shape.
    ///
    /// `context` is the result of [`Mmdit::embed_context`], `condition` is the index of timestep and prompt in `modulations`.
    /// `check_cancelled` is called before each block.
    pub(crate) fn forward(
        &self,
        latent: &Tensor,
        context: &Tensor,
        modulations: &Modulations,
        condition: usize,
        Omitted { skipped, cache }: Omitted<'_>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        let [_, height, width] = latent.dims()?;
        let ends = self.ends.get()?;
        let compute = |range: Range<usize>, image: Tensor, text: Tensor| -> Result<(Tensor, Tensor)> {
            let mut streams = Some((image, text));
            self.blocks.try_for_each_in(range, |index, block| {
                check_cancelled()?;
                if !skipped.contains(&index)
                    && let Some((image, text)) = streams.take()
                {
                    streams = Some(block.forward(image, text, modulations, condition)?);
                }
                Ok(())
            })?;
            streams.ok_or_else(|| Error::Compute("a block has no result".into()))
        };
        let (image, text) = (ends.patches.forward(latent, &self.positions)?, context.clone());
        let count = self.config.num_layers;
        let mut computed = (0..count).filter(|index| !skipped.contains(index));
        let image = match (cache, computed.next(), computed.next()) {
            (Some(cache), Some(first), Some(second)) => {
                let before = image.clone();
                let (after, text) = compute(first..first + 1, image, text)?;
                cache.complete(&before, after, |image| Ok(compute(second..count, image, text)?.0))?
            }
            _ => compute(0..count, image, text)?.0,
        };
        let [scale, shift] = modulations.output(condition)?;
        let image = norm_modulate(&image, &shift, &scale, NORM_EPS)?;
        self.unpatchify(&ends.output.forward(&image)?, height, width)
    }

    /// Returns the image and text tokens before the first block and after each block.
    #[cfg(test)]
    pub(crate) fn trace(
        &self,
        latent: &Tensor,
        context: &Tensor,
        modulations: &Modulations,
    ) -> Result<Vec<(Tensor, Tensor)>> {
        let mut states = vec![(self.ends.get()?.patches.forward(latent, &self.positions)?, context.clone())];
        self.blocks.try_for_each(|_, block| {
            let (image, text) = states[states.len() - 1].clone();
            states.push(block.forward(image, text, modulations, 0)?);
            Ok(())
        })?;
        Ok(states)
    }

    /// Converts `[tokens, patch * patch * channels]` to `[channels, height, width]`.
    fn unpatchify(&self, tokens: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let (patch, channels) = (self.config.patch_size, self.config.out_channels);
        let (rows, columns) = (height / patch, width / patch);
        // [rows, columns, p, q, channels] -> [channels, rows, p, columns, q]
        let grid = tokens.reshape(&[rows, columns, patch, patch, channels])?.permute([4, 0, 2, 1, 3])?;
        grid.reshape(&[channels, height, width])
    }

    pub(crate) fn config(&self) -> &DenoiserConfig {
        &self.config
    }
}
