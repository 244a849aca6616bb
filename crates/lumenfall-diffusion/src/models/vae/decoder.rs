//! The decoder, which converts latents to images.

use super::blocks::{MidBlock, ResnetBlock, group_norm};
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

#[derive(Debug)]
struct Level {
    resnets: Vec<ResnetBlock>,
    /// The convolution after upsampling. The last level has none.
    upsample: Option<Conv2d>,
}

impl Decoder {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig) -> Result<Self> {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let widest = widths.first().copied().unwrap_or(1);
        let narrowest = widths.last().copied().unwrap_or(1);
        let mut inputs = widest;
        let mut levels = Vec::with_capacity(widths.len());
        for (i, width) in widths.iter().copied().enumerate() {
            let level = scope.at(format_args!("up_blocks.{i}"));
            let resnets = (0..=config.layers_per_block)
                .map(|j| {
                    ResnetBlock::load(
                        &level.at(format_args!("resnets.{j}")),
                        config,
                        if j == 0 { inputs } else { width },
                        width,
                    )
                })
                .collect::<Result<_>>()?;
            let upsample = match i + 1 < widths.len() {
                true => Some(Conv2d::load(&level.at("upsamplers.0.conv"), width, width, 3)?),
                false => None,
            };
            levels.push(Level { resnets, upsample });
            inputs = width;
        }
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
            for resnet in &level.resnets {
                check_cancelled()?;
                x = resnet.forward(x)?;
            }
            if let Some(conv) = &level.upsample {
                x = conv.forward_upsampled(&x)?;
            }
        }
        self.conv_out.forward_normalized(&self.norm_out, &x)
    }
}
