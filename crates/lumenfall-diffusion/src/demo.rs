//! The demonstration model, embedded in the program.

use crate::weights::ModelFiles;

macro_rules! embed {
    ($($path:literal),* $(,)?) => {
        ModelFiles::Embedded(&[$(($path, include_bytes!(concat!("../demo/", $path)))),*])
    };
}

/// Returns the files of a small model with the architecture of Stable Diffusion 3.5.
///
/// `tools/train_demo.py` trained it to draw shapes, letters and digits in ten colours on six backgrounds. The files (10 MB)
/// are part of the program only if it calls this function.
pub fn demo_files() -> ModelFiles {
    embed![
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "text_encoder_3/config.json",
        "text_encoder_3/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "tokenizer_2/merges.txt",
        "tokenizer_2/tokenizer_config.json",
        "tokenizer_2/vocab.json",
        "tokenizer_3/tokenizer.json",
        "tokenizer_3/tokenizer_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
}
