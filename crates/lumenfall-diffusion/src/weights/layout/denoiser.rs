//! The denoiser in Stability AI's own naming.

use super::Rows;

/// The layers outside the blocks: original name, name in diffusers, and rows.
const ENDS: [(&str, &str, Rows); 8] = [
    ("x_embedder.proj", "pos_embed.proj", Rows::All),
    ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1", Rows::All),
    ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2", Rows::All),
    ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1", Rows::All),
    ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2", Rows::All),
    ("context_embedder", "context_embedder", Rows::All),
    ("final_layer.linear", "proj_out", Rows::All),
    ("final_layer.adaLN_modulation.1", "norm_out.linear", Rows::SwappedHalves),
];

/// The layers of a block. diffusers stores queries, keys and values apart.
const BLOCK: [(&str, &str, Rows); 24] = [
    ("x_block.attn.qkv", "attn.to_q", Rows::Third(0)),
    ("x_block.attn.qkv", "attn.to_k", Rows::Third(1)),
    ("x_block.attn.qkv", "attn.to_v", Rows::Third(2)),
    ("x_block.attn.proj", "attn.to_out.0", Rows::All),
    ("x_block.attn.ln_q", "attn.norm_q", Rows::All),
    ("x_block.attn.ln_k", "attn.norm_k", Rows::All),
    ("x_block.attn2.qkv", "attn2.to_q", Rows::Third(0)),
    ("x_block.attn2.qkv", "attn2.to_k", Rows::Third(1)),
    ("x_block.attn2.qkv", "attn2.to_v", Rows::Third(2)),
    ("x_block.attn2.proj", "attn2.to_out.0", Rows::All),
    ("x_block.attn2.ln_q", "attn2.norm_q", Rows::All),
    ("x_block.attn2.ln_k", "attn2.norm_k", Rows::All),
    ("x_block.mlp.fc1", "ff.net.0.proj", Rows::All),
    ("x_block.mlp.fc2", "ff.net.2", Rows::All),
    ("x_block.adaLN_modulation.1", "norm1.linear", Rows::All),
    ("context_block.attn.qkv", "attn.add_q_proj", Rows::Third(0)),
    ("context_block.attn.qkv", "attn.add_k_proj", Rows::Third(1)),
    ("context_block.attn.qkv", "attn.add_v_proj", Rows::Third(2)),
    ("context_block.attn.proj", "attn.to_add_out", Rows::All),
    ("context_block.attn.ln_q", "attn.norm_added_q", Rows::All),
    ("context_block.attn.ln_k", "attn.norm_added_k", Rows::All),
    ("context_block.mlp.fc1", "ff_context.net.0.proj", Rows::All),
    ("context_block.mlp.fc2", "ff_context.net.2", Rows::All),
    (TEXT_MODULATION, "norm1_context.linear", Rows::All),
];

const TEXT_MODULATION: &str = "context_block.adaLN_modulation.1";

/// The table of positions has no suffix.
const POSITIONS: (&str, &str) = ("pos_embed", "pos_embed.pos_embed");

/// Returns the names in diffusers of a tensor of the original denoiser, with its rows.
///
/// In the modulation of the last block's text and of the output, diffusers stores the scale before the shift. `width` is the
/// width of the denoiser.
pub(crate) fn original(name: &str, shape: &[usize], width: usize) -> Vec<(String, Rows)> {
    if name == POSITIONS.0 {
        return vec![(POSITIONS.1.into(), Rows::All)];
    }
    let Some((layer, suffix)) = name.rsplit_once('.') else { return Vec::new() };
    let found = |table: &[(&str, &str, Rows)], layer: &str, prefix: &str| -> Vec<(String, Rows)> {
        let entries = table.iter().filter(|(original, ..)| *original == layer);
        entries.map(|(_, target, rows)| (format!("{prefix}{target}.{suffix}"), *rows)).collect()
    };
    let Some((index, layer)) = layer.strip_prefix("joint_blocks.").and_then(|layer| layer.split_once('.')) else {
        return found(&ENDS, layer, "");
    };
    let mut targets = found(&BLOCK, layer, &format!("transformer_blocks.{index}."));
    // The last block's text has no gates: two parts instead of six.
    if layer == TEXT_MODULATION && shape.first() == Some(&(2 * width)) {
        targets.iter_mut().for_each(|(_, rows)| *rows = Rows::SwappedHalves);
    }
    targets
}

/// Returns the original name of a tensor of diffusers' denoiser, and the rows of the original tensor that it is.
pub(super) fn original_name(name: &str) -> Option<(String, Rows)> {
    if name == POSITIONS.1 {
        return Some((POSITIONS.0.into(), Rows::All));
    }
    let (layer, suffix) = name.rsplit_once('.')?;
    let find = |table: &[(&'static str, &str, Rows)], layer: &str| {
        table.iter().find(|(_, target, _)| *target == layer).map(|(original, _, rows)| (*original, *rows))
    };
    match layer.strip_prefix("transformer_blocks.").and_then(|layer| layer.split_once('.')) {
        Some((index, layer)) => {
            let (original, rows) = find(&BLOCK, layer)?;
            Some((format!("joint_blocks.{index}.{original}.{suffix}"), rows))
        }
        None => find(&ENDS, layer).map(|(original, rows)| (format!("{original}.{suffix}"), rows)),
    }
}
