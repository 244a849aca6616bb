//! Modulation: shift, scale and gate of each branch of a block, computed from the timestep and the pooled prompt.
//!
//! It does not depend on the image. So it is computed for many steps at once, and its weights, a third of the denoiser's, are
//! not needed while the blocks run.

use super::embedding::Condition;
use crate::checkpoint::config::DenoiserConfig;
use crate::error::{Error, Result};
use crate::layers::{Linear, norm_modulate};
use crate::tensor::Tensor;
use crate::weights::Scope;

/// The epsilon of every norm in the denoiser.
pub(super) const NORM_EPS: f64 = 1e-6;

/// The modulation of one branch, each `[1, width]`.
pub(super) struct Modulation {
    pub(super) shift: Tensor,
    pub(super) scale: Tensor,
    pub(super) gate: Tensor,
}

impl Modulation {
    /// Computes `layer_norm(x) * (1 + scale) + shift`.
    pub(super) fn norm(&self, x: &Tensor) -> Result<Tensor> {
        norm_modulate(x, &self.shift, &self.scale, NORM_EPS)
    }
}

/// The modulation of all blocks for several conditions.
#[derive(Debug)]
pub(crate) struct Modulations {
    /// The modulation of the image stream and of the text stream for each block: `[conditions, parts * width]`.
    blocks: Vec<[Tensor; 2]>,
    /// `[conditions, 2 * width]`
    output: Tensor,
}

impl Modulations {
    /// Reads the weights of one block after another and computes the modulation of each condition.
    pub(super) fn new(
        root: &Scope<'_>,
        config: &DenoiserConfig,
        conditions: &[Condition],
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Self> {
        let conditions = Tensor::concat(&conditions.iter().map(|Condition(values)| values).collect::<Vec<_>>())?;
        let blocks = (0..config.num_layers).map(|index| {
            check_cancelled()?;
            let [image, text] = layers(root, config, index)?;
            Ok([image.forward(&conditions)?, text.forward(&conditions)?])
        });
        let blocks = blocks.collect::<Result<_>>()?;
        Ok(Self { blocks, output: output_layer(root, config)?.forward(&conditions)? })
    }

    /// Checks the weights without reading them.
    pub(super) fn check(headers: &Scope<'_>, config: &DenoiserConfig) -> Result<()> {
        (0..config.num_layers).try_for_each(|index| layers(headers, config, index).map(|_| ()))?;
        output_layer(headers, config).map(|_| ())
    }

    /// Returns the modulation of a block's image stream, split into `N` vectors.
    pub(super) fn image<const N: usize>(&self, block: usize, condition: usize) -> Result<[Tensor; N]> {
        split(self.blocks.get(block).map(|[image, _]| image), condition)
    }

    /// Returns the modulation of a block's text stream, split into `N` vectors.
    pub(super) fn text<const N: usize>(&self, block: usize, condition: usize) -> Result<[Tensor; N]> {
        split(self.blocks.get(block).map(|[_, text]| text), condition)
    }

    /// Returns the scale and the shift before the last layer.
    pub(super) fn output(&self, condition: usize) -> Result<[Tensor; 2]> {
        split(Some(&self.output), condition)
    }
}

/// Returns the layers that compute the modulation of a block's image stream and text stream.
fn layers(root: &Scope<'_>, config: &DenoiserConfig, index: usize) -> Result<[Linear; 2]> {
    let scope = root.at(format_args!("transformer_blocks.{index}"));
    let width = config.width();
    let image_parts = if config.dual_attention_layers.contains(&index) { 9 } else { 6 };
    let text_parts = if index + 1 == config.num_layers { 2 } else { 6 };
    Ok([
        Linear::load(&scope.at("norm1.linear"), width, image_parts * width)?,
        Linear::load(&scope.at("norm1_context.linear"), width, text_parts * width)?,
    ])
}

fn output_layer(root: &Scope<'_>, config: &DenoiserConfig) -> Result<Linear> {
    Linear::load(&root.at("norm_out.linear"), config.width(), 2 * config.width())
}

/// Splits row `condition` of `[conditions, N * width]` into `N` vectors `[1, width]`.
fn split<const N: usize>(all: Option<&Tensor>, condition: usize) -> Result<[Tensor; N]> {
    let all = all.ok_or_else(|| Error::Compute("a block has no modulation".into()))?;
    let row = all.rows(condition..condition + 1)?.reshape(&[N, all.width() / N])?;
    let parts = (0..N).map(|part| row.rows(part..part + 1)).collect::<Result<Vec<_>>>()?;
    parts.try_into().map_err(|_| Error::Compute(format!("a modulation does not have {N} parts")))
}
