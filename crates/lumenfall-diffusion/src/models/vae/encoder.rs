//! The encoder, which converts images to latents.

use super::blocks::{Level, MidBlock, group_norm};
use crate::checkpoint::config::VaeConfig;
use crate::error::Result;
use crate::layers::{Conv2d, GroupNorm};
use crate::tensor::Tensor;
use crate::weights::Scope;

#[derive(Debug)]
pub(super) struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    mid: MidBlock,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let narrowest = widths.first().copied().unwrap_or(1);
        let widest = widths.last().copied().unwrap_or(1);
        let levels =
            Level::load_all(scope, config, "down_blocks", widths, config.layers_per_block, |level, channels| {
                Conv2d::load_downsample(&level.at("downsamplers.0.conv"), channels)
            })?;
        Ok(Self {
            conv_in: Conv2d::load(&scope.at("conv_in"), config.in_channels, narrowest, 3)?,
            levels,
            mid: MidBlock::load(&scope.at("mid_block"), config, widest)?,
            norm_out: group_norm(&scope.at("conv_norm_out"), config, widest)?,
            // The channels are the means and the log variances of the latent channels.
            conv_out: Conv2d::load(&scope.at("conv_out"), widest, 2 * config.latent_channels, 3)?,
        })
    }

    /// Converts `[height, width, 3]` to `[height / 8, width / 8, 2 * latent channels]`.
    pub(super) fn forward(&self, image: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let mut x = self.conv_in.forward(image)?;
        for level in &self.levels {
            x = level.forward(x, Conv2d::forward, check_cancelled)?;
        }
        let x = self.mid.forward(x)?;
        self.conv_out.forward_normalized(&self.norm_out, &x)
    }
}
