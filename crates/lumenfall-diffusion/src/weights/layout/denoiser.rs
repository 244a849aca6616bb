//! The denoiser in Stability AI's own naming.

use super::Rows;

/// Returns the names in diffusers of a tensor of the original denoiser, with its rows.
///
/// diffusers stores queries, keys and values apart. In the modulation of the last block's text and of the output, it stores
/// the scale before the shift. `width` is the width of the denoiser.
pub(super) fn original(name: &str, shape: &[usize], width: usize) -> Vec<(String, Rows)> {
    let Some((layer, suffix)) = name.rsplit_once('.') else {
        return match name {
            "pos_embed" => vec![("pos_embed.pos_embed".into(), Rows::All)],
            _ => Vec::new(),
        };
    };
    let one = |target: &str, rows: Rows| vec![(format!("{target}.{suffix}"), rows)];
    let whole = |target: &str| one(target, Rows::All);
    match layer {
        "x_embedder.proj" => whole("pos_embed.proj"),
        "t_embedder.mlp.0" => whole("time_text_embed.timestep_embedder.linear_1"),
        "t_embedder.mlp.2" => whole("time_text_embed.timestep_embedder.linear_2"),
        "y_embedder.mlp.0" => whole("time_text_embed.text_embedder.linear_1"),
        "y_embedder.mlp.2" => whole("time_text_embed.text_embedder.linear_2"),
        "context_embedder" => whole("context_embedder"),
        "final_layer.linear" => whole("proj_out"),
        "final_layer.adaLN_modulation.1" => one("norm_out.linear", Rows::SwappedHalves),
        _ => block(layer, shape, width).map_or_else(Vec::new, |targets| {
            targets.into_iter().map(|(target, rows)| (format!("{target}.{suffix}"), rows)).collect()
        }),
    }
}

fn block(layer: &str, shape: &[usize], width: usize) -> Option<Vec<(String, Rows)>> {
    let (index, layer) = layer.strip_prefix("joint_blocks.")?.split_once('.')?;
    let (stream, layer) = layer.split_once('.')?;
    let text = match stream {
        "x_block" => false,
        "context_block" => true,
        _ => return None,
    };
    let block = |target: &str| format!("transformer_blocks.{index}.{target}");
    let whole = |target: &str| Some(vec![(block(target), Rows::All)]);
    if let Some((attention @ ("attn" | "attn2"), layer)) = layer.split_once('.') {
        let target = |image: &str, of_text: &str| block(&format!("{attention}.{}", if text { of_text } else { image }));
        return match layer {
            "qkv" => {
                let names = [("to_q", "add_q_proj"), ("to_k", "add_k_proj"), ("to_v", "add_v_proj")];
                let parts = names.iter().enumerate();
                Some(parts.map(|(part, (image, text))| (target(image, text), Rows::Third(part))).collect())
            }
            "proj" => Some(vec![(target("to_out.0", "to_add_out"), Rows::All)]),
            "ln_q" => Some(vec![(target("norm_q", "norm_added_q"), Rows::All)]),
            "ln_k" => Some(vec![(target("norm_k", "norm_added_k"), Rows::All)]),
            _ => None,
        };
    }
    match (layer, text) {
        ("mlp.fc1", false) => whole("ff.net.0.proj"),
        ("mlp.fc2", false) => whole("ff.net.2"),
        ("mlp.fc1", true) => whole("ff_context.net.0.proj"),
        ("mlp.fc2", true) => whole("ff_context.net.2"),
        ("adaLN_modulation.1", false) => whole("norm1.linear"),
        ("adaLN_modulation.1", true) => {
            // The last block's text has no gates: two parts instead of six.
            let is_last = shape.first() == Some(&(2 * width));
            let rows = if is_last { Rows::SwappedHalves } else { Rows::All };
            Some(vec![(block("norm1_context.linear"), rows)])
        }
        _ => None,
    }
}
