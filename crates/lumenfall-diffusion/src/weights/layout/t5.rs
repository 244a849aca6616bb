//! The T5 encoder in llama.cpp's naming.

/// Returns the name in transformers of a tensor of a T5 encoder.
pub(super) fn llama_cpp(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("shared.weight".into()),
        "enc.output_norm.weight" => return Some("encoder.final_layer_norm.weight".into()),
        _ => {}
    }
    let (block, layer) = name.strip_prefix("enc.blk.")?.split_once('.')?;
    let layer = match layer {
        "attn_q.weight" => "0.SelfAttention.q",
        "attn_k.weight" => "0.SelfAttention.k",
        "attn_v.weight" => "0.SelfAttention.v",
        "attn_o.weight" => "0.SelfAttention.o",
        "attn_rel_b.weight" => "0.SelfAttention.relative_attention_bias",
        "attn_norm.weight" => "0.layer_norm",
        "ffn_gate.weight" => "1.DenseReluDense.wi_0",
        "ffn_up.weight" => "1.DenseReluDense.wi_1",
        "ffn_down.weight" => "1.DenseReluDense.wo",
        "ffn_norm.weight" => "1.layer_norm",
        _ => return None,
    };
    Some(format!("encoder.block.{block}.layer.{layer}.weight"))
}
