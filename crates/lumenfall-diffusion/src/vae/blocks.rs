//! The blocks that encoder and decoder share.

use candle_core::Tensor;

use crate::config::VaeConfig;
use crate::error::Result;
use crate::ops::{Conv2d, GroupNorm, Linear, Mask, Ops};
use crate::weights::Scope;

const NORM_EPS: f64 = 1e-6;

/// Loads a group norm of the autoencoder.
pub(super) fn group_norm(scope: &Scope<'_>, config: &VaeConfig, channels: usize) -> Result<GroupNorm> {
    GroupNorm::load(scope, config.norm_num_groups, channels, NORM_EPS)
}

/// Two convolutions with a residual connection.
#[derive(Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            norm1: group_norm(&scope.at("norm1"), config, inputs)?,
            conv1: Conv2d::load(&scope.at("conv1"), inputs, outputs, 3)?,
            norm2: group_norm(&scope.at("norm2"), config, outputs)?,
            conv2: Conv2d::load(&scope.at("conv2"), outputs, outputs, 3)?,
            shortcut: match inputs == outputs {
                true => None,
                false => Some(Conv2d::load(&scope.at("conv_shortcut"), inputs, outputs, 1)?),
            },
        })
    }

    pub(super) fn forward(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        let h = ops.conv2d(&ops.group_norm(x, &self.norm1, true)?, &self.conv1)?;
        let h = ops.conv2d(&ops.group_norm(&h, &self.norm2, true)?, &self.conv2)?;
        let residual = match &self.shortcut {
            Some(shortcut) => &ops.conv2d(x, shortcut)?,
            None => x,
        };
        Ok(ops.add(&h, residual)?)
    }
}

/// Self-attention over all pixels, with one head.
#[derive(Debug)]
struct AttentionBlock {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl AttentionBlock {
    fn load(scope: &Scope<'_>, config: &VaeConfig, channels: usize) -> Result<Self> {
        let linear = |name: &str| Linear::load(&scope.at(name), channels, channels);
        Ok(Self {
            norm: group_norm(&scope.at("group_norm"), config, channels)?,
            query: linear("to_q")?,
            key: linear("to_k")?,
            value: linear("to_v")?,
            output: linear("to_out.0")?,
        })
    }

    fn forward(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        let (height, width, channels) = x.dims3()?;
        // [height, width, channels] -> [pixels, channels]
        let pixels = ops.group_norm(x, &self.norm, false)?.reshape((height * width, channels))?;
        let (q, k, v) =
            (ops.linear(&pixels, &self.query)?, ops.linear(&pixels, &self.key)?, ops.linear(&pixels, &self.value)?);
        let attended = ops.attention(&q, &k, &v, 1, 1.0 / (channels as f32).sqrt(), Mask::None)?;
        let out = ops.linear(&attended, &self.output)?.reshape((height, width, channels))?;
        Ok(ops.add(x, &out)?)
    }
}

/// A ResNet block, an attention block and another ResNet block.
#[derive(Debug)]
pub(super) struct MidBlock {
    before: ResnetBlock,
    attention: AttentionBlock,
    after: ResnetBlock,
}

impl MidBlock {
    pub(super) fn load(scope: &Scope<'_>, config: &VaeConfig, channels: usize) -> Result<Self> {
        Ok(Self {
            before: ResnetBlock::load(&scope.at("resnets.0"), config, channels, channels)?,
            attention: AttentionBlock::load(&scope.at("attentions.0"), config, channels)?,
            after: ResnetBlock::load(&scope.at("resnets.1"), config, channels, channels)?,
        })
    }

    pub(super) fn forward(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        let x = self.before.forward(ops, x)?;
        let x = self.attention.forward(ops, &x)?;
        self.after.forward(ops, &x)
    }
}
