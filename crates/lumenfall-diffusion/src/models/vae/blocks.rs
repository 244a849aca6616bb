//! The blocks that encoder and decoder share.

use crate::checkpoint::config::VaeConfig;
use crate::error::Result;
use crate::layers::{Conv2d, GroupNorm, Linear, Mask, add, attention};
use crate::tensor::Tensor;
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

    /// Takes the image, so that its memory is freed early or receives the result.
    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (h, residual) = match &self.shortcut {
            Some(shortcut) => self.conv1.forward_with_shortcut(&self.norm1, shortcut, x)?,
            None => (self.conv1.forward_normalized(&self.norm1, &x)?, x),
        };
        self.conv2.add_normalized(&self.norm2, &h, residual)
    }
}

/// The ResNet blocks of one resolution, and the convolution that changes the resolution. The last level has none.
#[derive(Debug)]
pub(super) struct Level {
    resnets: Vec<ResnetBlock>,
    resample: Option<Conv2d>,
}

impl Level {
    /// Loads the levels `{name}.{index}` with `resnets` blocks each. Their images have `widths` channels. The first level receives
    /// an image with its own number of channels.
    pub(super) fn load_all(
        scope: &Scope<'_>,
        config: &VaeConfig,
        name: &str,
        widths: &[usize],
        resnets: usize,
        load_resample: impl Fn(&Scope<'_>, usize) -> Result<Conv2d>,
    ) -> Result<Vec<Self>> {
        let inputs = widths.first().into_iter().chain(widths);
        let load = |(index, (inputs, width)): (usize, (&usize, &usize))| {
            let level = scope.at(format_args!("{name}.{index}"));
            let resnet = |j| {
                let inputs = if j == 0 { *inputs } else { *width };
                ResnetBlock::load(&level.at(format_args!("resnets.{j}")), config, inputs, *width)
            };
            let resample = (index + 1 < widths.len()).then(|| load_resample(&level, *width)).transpose()?;
            Ok(Self { resnets: (0..resnets).map(resnet).collect::<Result<_>>()?, resample })
        };
        inputs.zip(widths).enumerate().map(load).collect()
    }

    /// Calls `check_cancelled` before each block.
    pub(super) fn forward(
        &self,
        mut x: Tensor,
        resample: impl Fn(&Conv2d, &Tensor) -> Result<Tensor>,
        check_cancelled: &dyn Fn() -> Result<()>,
    ) -> Result<Tensor> {
        for resnet in &self.resnets {
            check_cancelled()?;
            x = resnet.forward(x)?;
        }
        match &self.resample {
            Some(conv) => resample(conv, &x),
            None => Ok(x),
        }
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

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [height, width, channels] = x.dims()?;
        // [height, width, channels] -> [pixels, channels]
        let pixels = self.norm.forward(x)?.reshape(&[height * width, channels])?;
        let (q, k, v) = (self.query.forward(&pixels)?, self.key.forward(&pixels)?, self.value.forward(&pixels)?);
        let attended = attention(&q, &k, &v, 1, 1.0 / (channels as f32).sqrt(), Mask::None)?;
        add(self.output.forward(&attended)?.reshape(&[height, width, channels])?, x)
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

    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.before.forward(x)?;
        let x = self.attention.forward(&x)?;
        self.after.forward(x)
    }
}
