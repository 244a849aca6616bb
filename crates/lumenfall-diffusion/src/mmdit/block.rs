//! A transformer block with an image stream and a text stream, joined by one attention.

use candle_core::Tensor;

use super::attention::{Qkv, QkvProjection};
use super::modulation::{Modulation, NORM_EPS, chunks};
use crate::config::DenoiserConfig;
use crate::error::Result;
use crate::ops::{Activation, Linear, Ops};
use crate::weights::Scope;

/// The ratio of the MLP's hidden width to the block's width.
const MLP_RATIO: usize = 4;

const IMAGE_NAMES: [&str; 5] = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
const TEXT_NAMES: [&str; 5] = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];

#[derive(Debug)]
pub(super) struct Block {
    heads: usize,
    image: Stream,
    /// The second self-attention of the image stream, with its output projection.
    second_attention: Option<(QkvProjection, Linear)>,
    text: TextStream,
}

/// The layers of one stream.
#[derive(Debug)]
struct Stream {
    modulation: Linear,
    qkv: QkvProjection,
    output: Linear,
    up: Linear,
    down: Linear,
}

/// The text stream. The last block only reads it, because no later layer uses its output.
#[derive(Debug)]
enum TextStream {
    Full(Stream),
    ReadOnly { modulation: Linear, qkv: QkvProjection },
}

impl Block {
    pub(super) fn load(scope: &Scope<'_>, config: &DenoiserConfig, index: usize) -> Result<Self> {
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
        let second_attention = match dual {
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
        Ok(Self { heads: config.num_attention_heads, image, second_attention, text })
    }

    /// Computes the block. `image` and `text` are `[tokens, width]`, `condition` is `[1, width]`.
    pub(super) fn forward(
        &self,
        ops: Ops,
        image: &Tensor,
        text: &Tensor,
        condition: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let modulation = ops.linear(condition, &self.image.modulation)?.squeeze(0)?;
        let (attention, mlp, second) = if self.second_attention.is_some() {
            let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, shift2, scale2, gate2] = chunks(&modulation)?;
            let second = Modulation { shift: shift2, scale: scale2, gate: gate2 };
            let mlp = Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp };
            (Modulation { shift, scale, gate }, mlp, Some(second))
        } else {
            let (attention, mlp) = attention_and_mlp(&modulation)?;
            (attention, mlp, None)
        };
        let image_qkv = self.image.qkv.forward(ops, &attention.norm(ops, image)?)?;
        let image_tokens = image.dim(0)?;
        let (text_qkv, text_modulation) = self.text_qkv(ops, text, condition)?;
        let joint = image_qkv.concat(&text_qkv)?.attention(ops, self.heads)?;

        let image_attention = ops.linear(&joint.narrow(0, 0, image_tokens)?, &self.image.output)?;
        let mut new_image = ops.gated_residual(image, &image_attention, &attention.gate)?;
        if let (Some((qkv, output)), Some(second)) = (&self.second_attention, &second) {
            // Like the first attention, the second one has the block's input as its input.
            let attended = qkv.forward(ops, &second.norm(ops, image)?)?.attention(ops, self.heads)?;
            new_image = ops.gated_residual(&new_image, &ops.linear(&attended, output)?, &second.gate)?;
        }
        let new_image = self.image.mlp(ops, &new_image, &mlp)?;

        let new_text = match (&self.text, text_modulation) {
            (TextStream::Full(stream), Some((attention, mlp))) => {
                let text_attention = ops.linear(&joint.narrow(0, image_tokens, text.dim(0)?)?, &stream.output)?;
                stream.mlp(ops, &ops.gated_residual(text, &text_attention, &attention.gate)?, &mlp)?
            }
            _ => text.clone(),
        };
        Ok((new_image, new_text))
    }

    /// Returns queries, keys and values of the text and, except in the last block, the modulation of its attention and MLP.
    fn text_qkv(&self, ops: Ops, text: &Tensor, condition: &Tensor) -> Result<(Qkv, Option<(Modulation, Modulation)>)> {
        match &self.text {
            TextStream::Full(stream) => {
                let modulation = ops.linear(condition, &stream.modulation)?.squeeze(0)?;
                let (attention, mlp) = attention_and_mlp(&modulation)?;
                let qkv = stream.qkv.forward(ops, &attention.norm(ops, text)?)?;
                Ok((qkv, Some((attention, mlp))))
            }
            TextStream::ReadOnly { modulation, qkv } => {
                // Only here the scale precedes the shift.
                let [scale, shift] = chunks(&ops.linear(condition, modulation)?.squeeze(0)?)?;
                Ok((qkv.forward(ops, &ops.norm_modulate(text, &shift, &scale, NORM_EPS)?)?, None))
            }
        }
    }
}

impl Stream {
    fn mlp(&self, ops: Ops, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let hidden = ops.linear_activation(&modulation.norm(ops, x)?, &self.up, Activation::GeluTanh)?;
        Ok(ops.gated_residual(x, &ops.linear(&hidden, &self.down)?, &modulation.gate)?)
    }
}

fn attention_and_mlp(modulation: &Tensor) -> Result<(Modulation, Modulation)> {
    let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp] = chunks(modulation)?;
    Ok((Modulation { shift, scale, gate }, Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp }))
}
