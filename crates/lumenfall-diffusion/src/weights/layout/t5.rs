//! The T5 encoder in llama.cpp's naming.

/// The tensors outside the blocks: llama.cpp's name, and the name in transformers.
const ENDS: [(&str, &str); 2] =
    [("token_embd.weight", "shared.weight"), ("enc.output_norm.weight", "encoder.final_layer_norm.weight")];

/// The tensors of a block.
const BLOCK: [(&str, &str); 10] = [
    ("attn_q.weight", "layer.0.SelfAttention.q.weight"),
    ("attn_k.weight", "layer.0.SelfAttention.k.weight"),
    ("attn_v.weight", "layer.0.SelfAttention.v.weight"),
    ("attn_o.weight", "layer.0.SelfAttention.o.weight"),
    ("attn_rel_b.weight", "layer.0.SelfAttention.relative_attention_bias.weight"),
    ("attn_norm.weight", "layer.0.layer_norm.weight"),
    ("ffn_gate.weight", "layer.1.DenseReluDense.wi_0.weight"),
    ("ffn_up.weight", "layer.1.DenseReluDense.wi_1.weight"),
    ("ffn_down.weight", "layer.1.DenseReluDense.wo.weight"),
    ("ffn_norm.weight", "layer.1.layer_norm.weight"),
];

/// Returns the name in transformers of a tensor of a T5 encoder.
pub(super) fn llama_cpp(name: &str) -> Option<String> {
    let find = |table: &[(&str, &'static str)], name: &str| {
        table.iter().find(|(own, _)| *own == name).map(|(_, target)| *target)
    };
    match name.strip_prefix("enc.blk.").and_then(|name| name.split_once('.')) {
        Some((block, name)) => find(&BLOCK, name).map(|target| format!("encoder.block.{block}.{target}")),
        None => find(&ENDS, name).map(str::to_owned),
    }
}

/// Returns llama.cpp's name of a tensor of transformers' T5 encoder.
pub(super) fn llama_cpp_name(name: &str) -> Option<String> {
    let find = |table: &[(&'static str, &str)], name: &str| {
        table.iter().find(|(_, target)| *target == name).map(|(own, _)| *own)
    };
    match name.strip_prefix("encoder.block.").and_then(|name| name.split_once('.')) {
        Some((block, name)) => find(&BLOCK, name).map(|own| format!("enc.blk.{block}.{own}")),
        None => find(&ENDS, name).map(str::to_owned),
    }
}
