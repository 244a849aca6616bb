//! The functions of the fuzz targets in the repository's `fuzz/`: each passes arbitrary input to a reader of files. Nothing may
//! panic.
//!
//! A test passes the inputs in `fuzz/corpus/`, and variations of them, to the same functions.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::checkpoint::Part;
use crate::checkpoint::config::{ClipConfig, DenoiserConfig, T5Config, VaeConfig};
use crate::checkpoint::scheduler::SchedulerConfig;
use crate::error::Result;
use crate::image::{RgbImage, read_metadata};
use crate::models::{Clip, Mmdit, T5, Vae};
use crate::sampling::{ScheduleOptions, Scheduler};
use crate::text::{CLIP_SPECIALS, Tokenizer, clip_vocabulary};
use crate::weights::layout;
use crate::weights::{Container, ModelFiles, Weights};

/// A safetensors or GGUF file: its header, the names of its tensors, and their values.
pub fn weight_file(data: &[u8]) {
    let Ok(container) = Container::in_memory(data) else { return };
    for (name, info) in &container.tensors {
        let _ = container.shard.read(name, info, 0, info.shape.iter().product());
    }
    let parts = layout::find_parts(&container);
    for location in &parts {
        let Ok(weights) = layout::weights(&container, location) else { continue };
        assert!(weights.bytes("") <= weights.f32_bytes(""), "no format needs more than f32");
    }
    if parts.is_empty() {
        layout::describe_other_model(&container);
    }
}

/// A LoRA: its settings, and the roles of its tensors.
pub fn lora(data: &[u8]) {
    if let Ok(container) = Container::in_memory(data) {
        crate::lora::read_header(&container);
    }
}

/// A configuration in JSON, read as that of each part. A part without tensors does not open.
pub fn config(data: &[u8]) {
    if let Some(config) = parse(data, DenoiserConfig::check) {
        assert!(Mmdit::open(without_tensors(config)).is_err());
    }
    if let Some(config) = parse(data, VaeConfig::check) {
        assert!(config.downscale() <= 128);
        assert!(Vae::open(without_tensors(config)).is_err());
    }
    if let Some(config) = parse(data, ClipConfig::check) {
        assert!(Clip::open(without_tensors(config)).is_err());
    }
    if let Some(config) = parse(data, T5Config::check) {
        assert!(T5::open(without_tensors(config)).is_err());
    }
    if let Ok(config) = serde_json::from_slice::<SchedulerConfig>(data)
        && config.check().is_ok()
        && let Ok(scheduler) =
            Scheduler::with_options(&config, &ScheduleOptions::default(), config.sampler(), Some(4), 1024)
    {
        assert!(scheduler.steps().iter().all(|step| step.sigma.is_finite() && step.next_sigma.is_finite()));
    }
}

/// A tokenizer: `tokenizer.json` of T5 or CLIP, and the merges of CLIP. It then tokenizes the file itself.
pub fn tokenizer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let folder = std::env::temp_dir().join(format!("lumenfall-fuzz-{}", std::process::id()));
    let vocabulary = serde_json::Value::Object(clip_vocabulary(text, CLIP_SPECIALS)).to_string();
    for (part, name, content) in
        [("json", "tokenizer.json", text), ("clip", "merges.txt", text), ("clip", "vocab.json", &vocabulary)]
    {
        let part = folder.join(part);
        if std::fs::create_dir_all(&part).and_then(|()| std::fs::write(part.join(name), content)).is_err() {
            return;
        }
    }
    let files = ModelFiles::Folder(folder.clone());
    let tokenizers =
        [Tokenizer::clip(&files, "clip", 77), Tokenizer::clip(&files, "json", 77), Tokenizer::t5(&files, "json")];
    for tokenizer in tokenizers.into_iter().flatten() {
        let _ = tokenizer.words(text);
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// An image file, and the parameters that it may contain.
pub fn image_file(data: &[u8]) {
    read_metadata(data);
    if let Ok((image, alpha)) = RgbImage::decode_with_alpha(data) {
        let pixels = image.width() as usize * image.height() as usize;
        assert_eq!(image.pixels().len(), 3 * pixels);
        assert!(alpha.is_none_or(|alpha| alpha.len() == pixels));
    }
}

fn parse<C: DeserializeOwned>(data: &[u8], check: impl Fn(&C, &Path) -> Result<()>) -> Option<C> {
    let config = serde_json::from_slice(data).ok()?;
    check(&config, Path::new("config.json")).ok().map(|()| config)
}

fn without_tensors<C>(config: C) -> Part<C> {
    Part { weights: Weights::empty(Path::new("file")), config }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that change the structure of JSON and of binary numbers.
    const BYTES: [u8; 12] = [0, 1, 0x7F, 0x80, 0xFF, b'"', b',', b':', b'{', b']', b'0', b'9'];

    #[test]
    fn the_properties_hold_for_the_corpus_and_variations_of_it() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 6] = [
            ("safetensors", weight_file),
            ("gguf", weight_file),
            ("lora", lora),
            ("config", config),
            ("tokenizer", tokenizer),
            ("image_file", image_file),
        ];
        for (name, target) in targets {
            let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            // A tokenizer compiles regular expressions, which takes long without optimization.
            let step = if name == "tokenizer" { 32 } else { 1 };
            let mut inputs = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
                let mut input = std::fs::read(entry.unwrap().path()).unwrap();
                target(&input);
                for position in (0..input.len().min(256)).step_by(step) {
                    target(&input[..position]);
                    let byte = std::mem::replace(&mut input[position], BYTES[(position + inputs) % BYTES.len()]);
                    target(&input);
                    input[position] = byte;
                }
                inputs += 1;
            }
            assert!(inputs > 0, "{folder} is empty");
        }
    }
}
