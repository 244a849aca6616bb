//! A hash that identifies a model.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::file_names;
use super::files::{ModelFiles, RandomAccess};
use crate::error::Result;
use crate::lora::LoraFile;
use crate::parameters::LoadOptions;

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

/// The number of bytes at the start of a weights file that are hashed. They contain the header.
const HEAD_BYTES: u64 = 256 << 10;

/// The number and the length of the samples of a weights file.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 4096;

impl ModelFiles {
    /// Returns a hash that identifies the model, wherever its files are: 64 hexadecimal digits.
    ///
    /// It is the SHA-256 hash of the configuration and tokenizer files, and of the length, the first 256 KiB and 16 samples of
    /// 4 KiB of each weights file. It takes milliseconds, because most of the weights are not read. So a different hash means
    /// different files; the same hash does not prove that all weights are equal.
    ///
    /// # Errors
    /// Returns an error that names the file that is missing or cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Hash(Sha256::new());
        for name in SMALL_FILES.into_iter().filter(|name| self.exists(name)) {
            hash.add(name.as_bytes());
            hash.add(&self.read(name)?);
        }
        for (name, file) in self.weight_files()? {
            hash.add(name.as_bytes());
            hash.add_samples(&file)?;
        }
        Ok(hash.finish())
    }

    /// Opens all files with weights, and returns their names.
    fn weight_files(&self) -> Result<Vec<(String, RandomAccess)>> {
        let mut files = Vec::new();
        for (folder, stem) in WEIGHTS.into_iter().filter(|(folder, _)| self.has_folder(folder)) {
            for name in file_names(self, folder, stem)? {
                let file = self.open(&name)?;
                files.push((name, file));
            }
        }
        if let Self::Parts(parts) = self {
            for (part, path) in parts.iter() {
                files.push((part.name().to_owned(), RandomAccess::open(path)?));
            }
        }
        Ok(files)
    }

    /// Returns when the files of the model and of the LoRAs were changed. Unlike the samples of a fingerprint, the times show a
    /// change of any weight. Returns nothing if the time of a file is not known.
    pub(crate) fn modified(&self, loras: &[LoraFile]) -> Result<Option<Vec<SystemTime>>> {
        let files = self.weight_files()?.into_iter().map(|(_, file)| Ok(file));
        let loras = loras.iter().map(|lora| RandomAccess::open(&lora.path));
        files.chain(loras).map(|file| Ok(file?.modified())).collect()
    }

    /// Returns a hash that identifies the model with its LoRAs (their names, files, default strengths and whether these are fixed)
    /// and its tiny decoder. Without them, it is that of [`ModelFiles::fingerprint`].
    ///
    /// # Errors
    /// Returns an error that names the file that is missing or cannot be read.
    pub fn fingerprint_with(&self, options: &LoadOptions) -> Result<String> {
        let LoadOptions { loras, tiny_decoder, .. } = options;
        let model = self.fingerprint()?;
        if loras.is_empty() && tiny_decoder.is_none() {
            return Ok(model);
        }
        let mut hash = Hash(Sha256::new());
        hash.add(model.as_bytes());
        for LoraFile { name, path, strength, fixed } in loras {
            hash.add(name.as_bytes());
            hash.add(&strength.to_le_bytes());
            hash.add(&[u8::from(*fixed)]);
            hash.add_samples(&RandomAccess::open(path)?)?;
        }
        if let Some(path) = tiny_decoder {
            hash.add(b"tiny decoder");
            hash.add_samples(&RandomAccess::open(path)?)?;
        }
        Ok(hash.finish())
    }
}

struct Hash(Sha256);

impl Hash {
    /// Returns the hash in hexadecimal digits.
    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Adds bytes and their number, so that different parts cannot result in the same hash.
    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn add_samples(&mut self, file: &RandomAccess) -> Result<()> {
        self.add(&file.length.to_le_bytes());
        let mut head = vec![0; file.length.min(HEAD_BYTES) as usize];
        file.read_at(0, &mut head)?;
        self.add(&head);
        let last = file.length.saturating_sub(SAMPLE_BYTES);
        for index in 0..SAMPLES {
            let mut sample = vec![0; file.length.min(SAMPLE_BYTES) as usize];
            let start = u128::from(last) * u128::from(index) / u128::from(SAMPLES - 1);
            file.read_at(u64::try_from(start).unwrap_or(last), &mut sample)?;
            self.add(&sample);
        }
        Ok(())
    }
}
