//! A transformer block with an image stream and a text stream, joined by one attention.

use super::attention::{Qkv, QkvProjection};
use super::modulation::{Modulation, Modulations, NORM_EPS};
use crate::checkpoint::config::DenoiserConfig;
use crate::error::Result;
use crate::layers::{Activation, Linear, gated_residual, norm_modulate};
use crate::tensor::Tensor;
use crate::weights::Scope;

/// The ratio of the MLP's hidden width to the block's width.
const MLP_RATIO: usize = 4;

const IMAGE_NAMES: [&str; 5] = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
const TEXT_NAMES: [&str; 5] = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];

/// A block without the layers that compute its modulation.
#[derive(Debug)]
pub(super) struct Block {
    index: usize,
    heads: usize,
    image_qkv: QkvProjection,
    image: Stream,
    /// The second self-attention of the image stream, with its output projection.
    second_attention: Option<(QkvProjection, Linear)>,
    text_qkv: QkvProjection,
    /// `None` in the last block, because no later layer uses its text.
    text: Option<Stream>,
}

/// The layers of one stream after the attention.
#[derive(Debug)]
struct Stream {
    output: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    pub(super) fn load(root: &Scope<'_>, config: &DenoiserConfig, index: usize) -> Result<Self> {
        let scope = root.at(format_args!("transformer_blocks.{index}"));
        let width = config.width();
        let (attention, second) = (scope.at("attn"), scope.at("attn2"));
        let stream = |output: &str, mlp: &str| -> Result<Stream> {
            Ok(Stream {
                output: Linear::load(&attention.at(output), width, width)?,
                up: Linear::load(&scope.at(mlp).at("net.0.proj"), width, MLP_RATIO * width)?,
                down: Linear::load(&scope.at(mlp).at("net.2"), MLP_RATIO * width, width)?,
            })
        };
        let second_attention = match config.dual_attention_layers.contains(&index) {
            true => Some((
                QkvProjection::load(&second, config, IMAGE_NAMES)?,
                Linear::load(&second.at("to_out.0"), width, width)?,
            )),
            false => None,
        };
        Ok(Self {
            index,
            heads: config.num_attention_heads,
            image_qkv: QkvProjection::load(&attention, config, IMAGE_NAMES)?,
            image: stream("to_out.0", "ff")?,
            second_attention,
            text_qkv: QkvProjection::load(&attention, config, TEXT_NAMES)?,
            text: match index + 1 == config.num_layers {
                true => None,
                false => Some(stream("to_add_out", "ff_context")?),
            },
        })
    }

    /// Computes the block. `image` and `text` are `[tokens, width]`.
    pub(super) fn forward(
        &self,
        image: Tensor,
        text: Tensor,
        modulations: &Modulations,
        condition: usize,
    ) -> Result<(Tensor, Tensor)> {
        let (attention, mlp, second) = match &self.second_attention {
            Some(layers) => {
                let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, shift2, scale2, gate2] =
                    modulations.image(self.index, condition)?;
                let second = Modulation { shift: shift2, scale: scale2, gate: gate2 };
                let mlp = Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp };
                (Modulation { shift, scale, gate }, mlp, Some((layers, second)))
            }
            None => {
                let (attention, mlp) = attention_and_mlp(modulations.image(self.index, condition)?);
                (attention, mlp, None)
            }
        };
        let [image_tokens, _] = image.dims()?;
        let image_qkv = self.image_qkv.forward(&attention.norm(&image)?)?;
        let (text_qkv, text_modulation) = self.text_qkv(&text, modulations, condition)?;
        let joint = image_qkv.concat(&text_qkv)?.attention(self.heads)?;

        // Like the first attention, the second one has the block's input as its input.
        let second = match second {
            Some(((qkv, output), second)) => {
                let attended = qkv.forward(&second.norm(&image)?)?.attention(self.heads)?;
                Some((output.forward(&attended)?, second.gate))
            }
            None => None,
        };
        let attended = self.image.output.forward(&joint.rows(0..image_tokens)?)?;
        let mut image = gated_residual(image, &attended, &attention.gate)?;
        if let Some((attended, gate)) = second {
            image = gated_residual(image, &attended, &gate)?;
        }
        let image = self.image.mlp(image, &mlp)?;

        let text = match (&self.text, text_modulation) {
            (Some(stream), Some((attention, mlp))) => {
                let [text_tokens, _] = text.dims()?;
                let attended = stream.output.forward(&joint.rows(image_tokens..image_tokens + text_tokens)?)?;
                stream.mlp(gated_residual(text, &attended, &attention.gate)?, &mlp)?
            }
            _ => text,
        };
        Ok((image, text))
    }

    /// Returns queries, keys and values of the text and, except in the last block, the modulation of its attention and MLP.
    fn text_qkv(
        &self,
        text: &Tensor,
        modulations: &Modulations,
        condition: usize,
    ) -> Result<(Qkv, Option<(Modulation, Modulation)>)> {
        if self.text.is_some() {
            let (attention, mlp) = attention_and_mlp(modulations.text(self.index, condition)?);
            return Ok((self.text_qkv.forward(&attention.norm(text)?)?, Some((attention, mlp))));
        }
        // Only here the scale precedes the shift.
        let [scale, shift] = modulations.text(self.index, condition)?;
        Ok((self.text_qkv.forward(&norm_modulate(text, &shift, &scale, NORM_EPS)?)?, None))
    }
}

impl Stream {
    fn mlp(&self, x: Tensor, modulation: &Modulation) -> Result<Tensor> {
        let hidden = self.up.forward_activated(&modulation.norm(&x)?, Activation::GeluTanh)?;
        gated_residual(x, &self.down.forward(&hidden)?, &modulation.gate)
    }
}

fn attention_and_mlp(parts: [Tensor; 6]) -> (Modulation, Modulation) {
    let [shift, scale, gate, shift_mlp, scale_mlp, gate_mlp] = parts;
    (Modulation { shift, scale, gate }, Modulation { shift: shift_mlp, scale: scale_mlp, gate: gate_mlp })
}
