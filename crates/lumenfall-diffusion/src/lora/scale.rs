//! The scale of a LoRA's differences.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::weights::layout::PartKind;
use crate::weights::{Container, ModelFiles};

/// The key with peft's settings, as JSON, that diffusers writes into the header.
const ADAPTER_METADATA: &str = "lora_adapter_metadata";

/// The file with peft's settings, in the folder of the file with the weights.
const ADAPTER_FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];

/// The settings of a LoRA that its tensors do not contain.
#[derive(Debug, Default)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    /// Reads the settings in the header of a file, and in peft's file in the same folder.
    pub(super) fn read(container: &Container) -> Result<Self> {
        let path = container.shard.path();
        let mut settings = Map::new();
        let [model, config] = ADAPTER_FILES;
        if path.file_name().is_some_and(|name| name == model) {
            let folder = ModelFiles::Folder(path.with_file_name(""));
            if folder.exists(config) {
                let path = folder.path(config);
                let text = String::from_utf8(folder.read(config)?);
                let text = text.map_err(|_| Error::malformed(&path, "is not UTF-8 text; download it again"))?;
                settings.extend(object(&path, "the file", &text)?);
            }
        }
        for (key, value) in &container.metadata {
            match key.as_str() {
                ADAPTER_METADATA => settings.extend(object(path, "its metadata", value)?),
                // Values in the header are text.
                _ => drop(settings.insert(key.clone(), serde_json::from_str(value).unwrap_or(Value::Null))),
            }
        }
        check_patterns(path, &settings)?;
        Ok(Self(settings))
    }

    /// Returns a setting of a part, or of the whole file.
    fn get(&self, part: PartKind, name: &str) -> Option<&Value> {
        let component = match part {
            PartKind::ClipL => "text_encoder",
            PartKind::ClipG => "text_encoder_2",
            PartKind::T5 => "text_encoder_3",
            _ => "transformer",
        };
        self.0.get(&format!("{component}.{name}")).or_else(|| self.0.get(name)).filter(|value| !value.is_null())
    }

    /// Returns the alpha of a layer, if the settings have one.
    fn alpha(&self, part: PartKind, layer: &str) -> Option<f64> {
        let patterns = self.get(part, "alpha_pattern").and_then(Value::as_object);
        let pattern = patterns.and_then(|patterns| patterns.iter().find(|(pattern, _)| matches(pattern, layer)));
        let value = pattern.map(|(_, alpha)| alpha);
        value.or_else(|| self.get(part, "lora_alpha")).or_else(|| self.get(part, "network_alpha"))?.as_f64()
    }

    /// Returns the scale of a layer's difference of a rank. `alpha` is the tensor of this name.
    ///
    /// Without any alpha, the scale is that of an alpha equal to the rank.
    pub(super) fn scale(&self, part: PartKind, layer: &str, rank: usize, alpha: Option<f32>) -> f32 {
        let rank = rank as f64;
        let alpha = alpha.map(f64::from).or_else(|| self.alpha(part, layer));
        // kohya's scripts write 0 if the user set no alpha.
        let alpha = alpha.filter(|alpha| *alpha != 0.0).unwrap_or(rank);
        let is_rank_stabilized = self.get(part, "use_rslora").and_then(Value::as_bool) == Some(true);
        (alpha / if is_rank_stabilized { rank.sqrt() } else { rank }) as f32
    }
}

/// Returns whether one of peft's patterns matches a layer. Without `^`, it may match the last parts of the layer's name.
fn matches(pattern: &str, layer: &str) -> bool {
    let name = pattern.trim_end_matches('$').replace("\\.", ".");
    match name.strip_prefix('^') {
        Some(name) => layer == name,
        None => layer.strip_suffix(&name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    }
}

/// Returns an error if a pattern has any characters of regular expressions but anchors and dots.
fn check_patterns(path: &Path, settings: &Map<String, Value>) -> Result<()> {
    let patterns = settings.iter().filter(|(key, _)| key.ends_with("alpha_pattern"));
    let mut patterns = patterns.filter_map(|(_, patterns)| patterns.as_object()).flat_map(Map::keys);
    let is_plain = |pattern: &String| {
        let name = pattern.trim_start_matches('^').trim_end_matches('$').replace("\\.", ".");
        name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '_' | '-'))
    };
    match patterns.find(|pattern| !is_plain(pattern)) {
        None => Ok(()),
        Some(pattern) => Err(Error::malformed(
            path,
            format!(
                "has the regular expression `{pattern}` in `alpha_pattern`, which is not supported; save it with names"
            ),
        )),
    }
}

fn object(path: &Path, place: &str, text: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| {
        Error::malformed(path, format!("has settings of a LoRA that are not a JSON object in {place}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(settings: &Value, rank: usize, alpha: Option<f32>) -> f32 {
        let settings = Settings(settings.as_object().unwrap().clone());
        settings.scale(PartKind::Denoiser, "transformer_blocks.0.attn.to_q", rank, alpha)
    }

    #[test]
    fn the_tensor_precedes_the_metadata_and_both_precede_the_rank() {
        let metadata = serde_json::json!({"transformer.lora_alpha": 8, "transformer.r": 4});
        assert_eq!(scale(&metadata, 4, Some(2.0)), 0.5);
        assert_eq!(scale(&metadata, 4, None), 2.0);
        // The rank of this layer differs from the file's.
        assert_eq!(scale(&metadata, 16, None), 0.5);
        assert_eq!(scale(&serde_json::json!({"network_alpha": 2}), 4, None), 0.5);
        assert_eq!(scale(&serde_json::json!({"text_encoder.lora_alpha": 2}), 4, None), 1.0);
        for rank in [4, 16] {
            assert_eq!(scale(&serde_json::json!({}), rank, None), 1.0);
            assert_eq!(scale(&serde_json::json!({}), rank, Some(0.0)), 1.0);
        }
    }

    #[test]
    fn patterns_and_rank_stabilization_are_obeyed() {
        let metadata = serde_json::json!({
            "transformer.lora_alpha": 8,
            "transformer.use_rslora": true,
            "transformer.alpha_pattern": {"attn.to_k": 3, "_q": 5, "^attn.to_q$": 6, r"attn\.to_q$": 4},
        });
        assert_eq!(scale(&metadata, 4, None), 2.0);
        let patterns = serde_json::json!({"alpha_pattern": {"attn.to_[qk]": 3}});
        let error = check_patterns(Path::new("a"), patterns.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains("`attn.to_[qk]` in `alpha_pattern`"), "{error}");
        let metadata = serde_json::json!({"lora_alpha": 8, "use_rslora": true});
        assert_eq!(scale(&metadata, 4, None), 4.0);
    }
}
