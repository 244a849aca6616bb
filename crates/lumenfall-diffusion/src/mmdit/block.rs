//! One transformer block: two streams, image and text, that meet in the attention.

use candle_core::Tensor;

use super::attention::QkvProjection;
use super::chunks;
use crate::config::DenoiserConfig;
use crate::error::Result;
use crate::ops::{Activation, Linear, Ops};
use crate::weights::Scope;

/// What every norm of the denoiser adds to the variance.
pub(crate) const NORM_EPS: f64 = 1e-6;

/// The hidden width of a block's MLP over its width.
const MLP_RATIO: usize = 4;

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    heads: usize,
    image: Stream,
    /// The second self-attention of the image stream, with its output layer.
    image_only: Option<(QkvProjection, Linear)>,
    text: TextStream,
}

/// A stream that is changed by the block.
#[derive(Debug)]
struct Stream {
    modulation: Linear,
    qkv: QkvProjection,
    output: Linear,
    up: Linear,
    down: Linear,
}

/// The text side: in the last block only read, since nothing after it looks at the text.
#[derive(Debug)]
enum TextStream {
    Full(Stream),
    ReadOnly { modulation: Linear, qkv: QkvProjection },
}

/// Shift, scale and gate of one branch of a block, each `[width]`.
struct Modulation {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

const IMAGE_NAMES: [&str; 5] = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
const TEXT_NAMES: [&str; 5] = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];

impl Block {
    pub(crate) fn load(scope: &Scope<'_>, config: &DenoiserConfig, index: usize) -> Result<Self> {
        let width = config.width();
        let attention = scope.at("attn");
        let stream = |modulation: &str, parts: usize, names, output: &str, mlp: &str| -> Result<Stream> {
            Ok(Stream {
                modulation: Linear::load(&scope.at(modulation), width, parts * width)?,
                qkv: QkvProjection::load(&attention, config, names)?,
                output: Linear::load(&attention.at(output), width, width)?,
                up: Linear::load(&scope.at(mlp).at("net.0.proj"), width, MLP_RATIO * width)?,
                down: Linear::load(&scope.at(mlp).at("net.2"), MLP_RATIO * width, width)?,
            })
        };
        let dual = config.dual_attention_layers.contains(&index);
        let image = stream("norm1.linear", if dual { 9 } else { 6 }, IMAGE_NAMES, "to_out.0", "ff")?;
        let image_only = match dual {
            true => {
                let second = scope.at("attn2");
                let qkv = QkvProjection::load(&second, config, IMAGE_NAMES)?;
                Some((qkv, Linear::load(&second.at("to_out.0"), width, width)?))
            }
            false => None,
        };
        let text = match index + 1 == config.num_layers {
            true => TextStream::ReadOnly {
                modulation: Linear::load(&scope.at("norm1_context.linear"), width, 2 * width)?,
                qkv: QkvProjection::load(&attention, config, TEXT_NAMES)?,
            },
            false => TextStream::Full(stream("norm1_context.linear", 6, TEXT_NAMES, "to_add_out", "ff_context")?),
        };
        Ok(Self { heads: config.num_attention_heads, image, image_only, text })
    }

    /// `image` and `text` are `[tokens, width]`, `condition` `[1, width]`.
    pub(crate) fn forward(
        &self,
        ops: Ops,
        image: &Tensor,
        text: &Tensor,
        condition: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let modulation = ops.linear(condition, &self.image.modulation)?.squeeze(0)?;
        let (attention, mlp, second) = if self.image_only.is_some() {
            let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, shift2, scale2, gate2] = chunks(&modulation)?;
            let second = Modulation { shift: shift2, scale: scale2, gate: gate2 };
            (
                Modulation { shift, scale, gate },
                Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp },
                Some(second),
            )
        } else {
            let (attention, mlp) = six(&modulation)?;
            (attention, mlp, None)
        };
        let image_qkv = self.image.qkv.forward(ops, &attention.norm(ops, image)?)?;
        let image_tokens = image.dim(0)?;
        let (text_qkv, text_modulation) = self.read_text(ops, text, condition)?;
        let attended = image_qkv.join(&text_qkv)?.attend(ops, self.heads)?;

        let attended_image = ops.linear(&attended.narrow(0, 0, image_tokens)?, &self.image.output)?;
        let mut result = ops.gated_residual(image, &attended_image, &attention.gate)?;
        if let (Some((qkv, output)), Some(second)) = (&self.image_only, &second) {
            // The second attention starts from the block's input, as the first does.
            let own = qkv.forward(ops, &second.norm(ops, image)?)?.attend(ops, self.heads)?;
            result = ops.gated_residual(&result, &ops.linear(&own, output)?, &second.gate)?;
        }
        let image = self.image.mlp(ops, &result, &mlp)?;

        let text = match (&self.text, text_modulation) {
            (TextStream::Full(stream), Some((attention, mlp))) => {
                let attended = attended.narrow(0, image_tokens, text.dim(0)?)?;
                let text = ops.gated_residual(text, &ops.linear(&attended, &stream.output)?, &attention.gate)?;
                stream.mlp(ops, &text, &mlp)?
            }
            _ => text.clone(),
        };
        Ok((image, text))
    }

    /// Queries, keys and values of the text, and what modulates the rest of its way, where there is one.
    fn read_text(
        &self,
        ops: Ops,
        text: &Tensor,
        condition: &Tensor,
    ) -> Result<(super::attention::Qkv, Option<(Modulation, Modulation)>)> {
        match &self.text {
            TextStream::Full(stream) => {
                let (attention, mlp) = six(&ops.linear(condition, &stream.modulation)?.squeeze(0)?)?;
                let qkv = stream.qkv.forward(ops, &attention.norm(ops, text)?)?;
                Ok((qkv, Some((attention, mlp))))
            }
            TextStream::ReadOnly { modulation, qkv } => {
                // Here, unlike anywhere else in the blocks, the scale comes first.
                let [scale, shift] = chunks(&ops.linear(condition, modulation)?.squeeze(0)?)?;
                Ok((qkv.forward(ops, &ops.norm_modulate(text, &shift, &scale, NORM_EPS)?)?, None))
            }
        }
    }
}

impl Stream {
    fn mlp(&self, ops: Ops, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let inner = ops.linear_activation(&modulation.norm(ops, x)?, &self.up, Activation::GeluTanh)?;
        Ok(ops.gated_residual(x, &ops.linear(&inner, &self.down)?, &modulation.gate)?)
    }
}

impl Modulation {
    fn norm(&self, ops: Ops, x: &Tensor) -> Result<Tensor> {
        Ok(ops.norm_modulate(x, &self.shift, &self.scale, NORM_EPS)?)
    }
}

fn six(modulation: &Tensor) -> Result<(Modulation, Modulation)> {
    let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp] = chunks(modulation)?;
    Ok((Modulation { shift, scale, gate }, Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp }))
}
