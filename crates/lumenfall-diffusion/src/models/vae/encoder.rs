//! The encoder, which converts images to latents.

use super::blocks::{MidBlock, ResnetBlock, group_norm};
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

#[derive(Debug)]
struct Level {
    resnets: Vec<ResnetBlock>,
    /// The convolution that halves width and height. The last level has none.
    downsample: Option<Conv2d>,
}

impl Encoder {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig) -> Result<Self> {
        let widths = &config.block_out_channels;
        let narrowest = widths.first().copied().unwrap_or(1);
        let widest = widths.last().copied().unwrap_or(1);
        let mut inputs = narrowest;
        let mut levels = Vec::with_capacity(widths.len());
        for (i, width) in widths.iter().copied().enumerate() {
            let level = scope.at(format_args!("down_blocks.{i}"));
            let resnets = (0..config.layers_per_block)
                .map(|j| {
                    ResnetBlock::load(
                        &level.at(format_args!("resnets.{j}")),
                        config,
                        if j == 0 { inputs } else { width },
                        width,
                    )
                })
                .collect::<Result<_>>()?;
            let downsample = match i + 1 < widths.len() {
                true => Some(Conv2d::load_downsample(&level.at("downsamplers.0.conv"), width)?),
                false => None,
            };
            levels.push(Level { resnets, downsample });
            inputs = width;
        }
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
            for resnet in &level.resnets {
                check_cancelled()?;
                x = resnet.forward(x)?;
            }
            if let Some(conv) = &level.downsample {
                x = conv.forward(&x)?;
            }
        }
        let x = self.mid.forward(x)?;
        self.conv_out.forward_normalized(&self.norm_out, &x)
    }
}
