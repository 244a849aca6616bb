//! The image autoencoder in Stability AI's own naming.

use crate::weights::container::Container;

/// Returns the number of resolutions of the decoder.
pub(super) fn levels(container: &Container, prefix: &str) -> usize {
    let exists = |level: &usize| container.shape(&format!("{prefix}decoder.up.{level}.block.0.conv1.weight")).is_some();
    (0..16).take_while(exists).count()
}

/// Returns the name in diffusers of a tensor of the original autoencoder with `levels` resolutions.
pub(super) fn original(name: &str, levels: usize) -> Option<String> {
    let (half, rest) = name.split_once('.')?;
    // Their presence shows that the autoencoder is not that of SD 3.5.
    if matches!(half, "quant_conv" | "post_quant_conv") {
        return Some(name.to_owned());
    }
    if !matches!(half, "encoder" | "decoder") {
        return None;
    }
    let (layer, suffix) = rest.rsplit_once('.')?;
    let layer = match layer.split_once('.').unwrap_or((layer, "")) {
        ("conv_in" | "conv_out", "") => layer.to_owned(),
        ("norm_out", "") => "conv_norm_out".to_owned(),
        ("mid", layer) => middle(layer)?,
        ("down", layer) => level(layer, "down_blocks", "downsample", Some)?,
        // diffusers numbers the decoder's levels in the order of their computation.
        ("up", layer) => level(layer, "up_blocks", "upsample", |level| levels.checked_sub(level + 1))?,
        _ => return None,
    };
    Some(format!("{half}.{layer}.{suffix}"))
}

fn middle(layer: &str) -> Option<String> {
    if let Some(layer) = layer.strip_prefix("attn_1.") {
        let target = match layer {
            "norm" => "group_norm",
            "q" => "to_q",
            "k" => "to_k",
            "v" => "to_v",
            "proj_out" => "to_out.0",
            _ => return None,
        };
        return Some(format!("mid_block.attentions.0.{target}"));
    }
    let (block, layer) = layer.split_once('.')?;
    let index = match block {
        "block_1" => 0,
        "block_2" => 1,
        _ => return None,
    };
    Some(format!("mid_block.resnets.{index}.{}", resnet(layer)))
}

fn level(layer: &str, blocks: &str, resample: &str, number: impl Fn(usize) -> Option<usize>) -> Option<String> {
    let (level, layer) = layer.split_once('.')?;
    let level = number(level.parse().ok()?)?;
    if let Some(layer) = layer.strip_prefix(resample) {
        return Some(format!("{blocks}.{level}.{resample}rs.0{layer}"));
    }
    let (block, layer) = layer.strip_prefix("block.")?.split_once('.')?;
    Some(format!("{blocks}.{level}.resnets.{block}.{}", resnet(layer)))
}

fn resnet(layer: &str) -> &str {
    if layer == "nin_shortcut" { "conv_shortcut" } else { layer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_diffusers() {
        for (original_name, name) in [
            ("encoder.conv_in.weight", "encoder.conv_in.weight"),
            ("encoder.down.1.block.0.nin_shortcut.bias", "encoder.down_blocks.1.resnets.0.conv_shortcut.bias"),
            ("encoder.down.2.downsample.conv.weight", "encoder.down_blocks.2.downsamplers.0.conv.weight"),
            ("decoder.up.3.block.2.norm1.weight", "decoder.up_blocks.0.resnets.2.norm1.weight"),
            ("decoder.up.1.upsample.conv.bias", "decoder.up_blocks.2.upsamplers.0.conv.bias"),
            ("decoder.mid.block_1.conv1.weight", "decoder.mid_block.resnets.0.conv1.weight"),
            ("decoder.mid.block_2.conv2.bias", "decoder.mid_block.resnets.1.conv2.bias"),
            ("decoder.mid.attn_1.q.weight", "decoder.mid_block.attentions.0.to_q.weight"),
            ("decoder.mid.attn_1.norm.weight", "decoder.mid_block.attentions.0.group_norm.weight"),
            ("decoder.norm_out.weight", "decoder.conv_norm_out.weight"),
            ("quant_conv.weight", "quant_conv.weight"),
        ] {
            assert_eq!(original(original_name, 4).as_deref(), Some(name));
        }
        assert_eq!(original("decoder.up.4.block.0.conv1.weight", 4), None);
        assert_eq!(original("loss.weight", 4), None);
    }
}
