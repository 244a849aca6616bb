//! The data of the tokenizers of Stable Diffusion 3.5.

/// The files of both CLIP tokenizers and of the T5 tokenizer, with their paths in a model folder of the diffusers library.
///
/// The CLIP tokenizers have no `vocab.json`: the vocabulary consists of the bytes, the bytes at the end of a word, and the
/// merges, in this order.
pub const FILES: &[(&str, &[u8])] = &[
    ("tokenizer/merges.txt", CLIP_MERGES),
    (
        "tokenizer/tokenizer_config.json",
        br#"{"pad_token": "<|endoftext|>", "model_max_length": 77, "added_tokens_decoder": {
            "49406": {"content": "<|startoftext|>", "normalized": true, "special": true},
            "49407": {"content": "<|endoftext|>", "normalized": false, "special": true}}}"#,
    ),
    ("tokenizer_2/merges.txt", CLIP_MERGES),
    (
        "tokenizer_2/tokenizer_config.json",
        br#"{"pad_token": "!", "model_max_length": 77, "added_tokens_decoder": {
            "0": {"content": "!", "normalized": false, "special": true},
            "49406": {"content": "<|startoftext|>", "normalized": true, "special": true},
            "49407": {"content": "<|endoftext|>", "normalized": true, "special": true}}}"#,
    ),
    ("tokenizer_3/tokenizer.json", include_bytes!("../data/t5-tokenizer.json")),
    ("tokenizer_3/tokenizer_config.json", br#"{"pad_token": "<pad>", "model_max_length": 512}"#),
];

const CLIP_MERGES: &[u8] = include_bytes!("../data/clip-merges.txt");
