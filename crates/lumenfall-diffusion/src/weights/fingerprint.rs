//! A hash that identifies a model.

use sha2::{Digest, Sha256};

use super::files::ModelFiles;
use super::{file_names, safetensors};
use crate::error::Result;

/// The files that are hashed completely, if they exist.
const SMALL_FILES: [&str; 16] = [
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "text_encoder_3/config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "tokenizer_3/tokenizer.json",
    "tokenizer_3/tokenizer_config.json",
    "transformer/config.json",
    "vae/config.json",
];

/// The folders with weights, and the names of their files without the extension.
const WEIGHTS: [(&str, &str); 5] = [
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
    ("text_encoder_3", "model"),
    ("transformer", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
];

/// The number and the length of the samples of a weights file.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 4096;

impl ModelFiles {
    /// Returns a hash that identifies the model, wherever its files are: 64 hexadecimal digits.
    ///
    /// It is the SHA-256 hash of the configuration and tokenizer files, and of the length, the header and 16 samples of 4 KiB
    /// of each weights file. It takes milliseconds, because most of the weights are not read. So a different hash means
    /// different files; the same hash does not prove that all weights are equal.
    ///
    /// # Errors
    /// Returns an error that names the file that is missing or cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        // The length of each part is hashed, too, so that different parts cannot result in the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for name in SMALL_FILES.into_iter().filter(|name| self.exists(name)) {
            part(name.as_bytes());
            part(&self.read(name)?);
        }
        for (folder, stem) in WEIGHTS {
            if !self.exists(&format!("{folder}/config.json")) {
                continue;
            }
            for name in file_names(self, folder, stem)? {
                let file = self.open(&name)?;
                let header = safetensors::header(&file)?;
                part(name.as_bytes());
                part(&file.length.to_le_bytes());
                part(&header);
                let start = header.len() as u64 + 8;
                let data = file.length.saturating_sub(start);
                let last = data.saturating_sub(SAMPLE_BYTES);
                for index in 0..SAMPLES {
                    let mut sample = vec![0; data.min(SAMPLE_BYTES) as usize];
                    file.read_at(start + last * index / (SAMPLES - 1), &mut sample)?;
                    part(&sample);
                }
            }
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
