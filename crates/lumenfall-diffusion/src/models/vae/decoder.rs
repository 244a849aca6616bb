//! The decoder, which converts latents to images.

use super::blocks::{Level, MidBlock, group_norm};
use crate::checkpoint::config::VaeConfig;
use crate::error::Result;
use crate::layers::{Conv2d, GroupNorm};
use crate::tensor::Tensor;
use crate::weights::Scope;

#[derive(Debug)]
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid: MidBlock,
    levels: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig) -> Result<Self> {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let widest = widths.first().copied().unwrap_or(1);
        let narrowest = widths.last().copied().unwrap_or(1);
        let resnets = config.layers_per_block + 1;
        let levels = Level::load_all(scope, config, "up_blocks", &widths, resnets, |level, width| {
            Conv2d::load(&level.at("upsamplers.0.conv"), width, width, 3)
        })?;
        Ok(Self {
            conv_in: Conv2d::load(&scope.at("conv_in"), config.latent_channels, widest, 3)?,
            mid: MidBlock::load(&scope.at("mid_block"), config, widest)?,
            levels,
            norm_out: group_norm(&scope.at("conv_norm_out"), config, narrowest)?,
            conv_out: Conv2d::load(&scope.at("conv_out"), narrowest, config.out_channels, 3)?,
        })
    }

    /// Converts `[height, width, latent channels]` to `[height * 8, width * 8, 3]`.
    pub(super) fn forward(&self, latent: &Tensor, check_cancelled: &dyn Fn() -> Result<()>) -> Result<Tensor> {
        let mut x = self.mid.forward(self.conv_in.forward(latent)?)?;
        for level in &self.levels {
            x = level.forward(x, Conv2d::forward_upsampled, check_cancelled)?;
        }
        self.conv_out.forward_normalized(&self.norm_out, &x)
    }
}
