//! The files of a repository that the pipeline reads.

/// The folders of the diffusers layout, with the name of their weights without variant and extension.
const FOLDERS: [(&str, Option<&str>); 9] = [
    ("scheduler", None),
    ("tokenizer", None),
    ("tokenizer_2", None),
    ("tokenizer_3", None),
    ("text_encoder", Some("model")),
    ("text_encoder_2", Some("model")),
    ("text_encoder_3", Some("model")),
    ("transformer", Some("diffusion_pytorch_model")),
    ("vae", Some("diffusion_pytorch_model")),
];

const INDEX: &str = "model_index.json";

/// Returns the needed files of those in a repository, or what is missing.
pub(super) fn select(names: &[String], skip_t5: bool) -> Result<Vec<String>, String> {
    if !names.iter().any(|name| name == INDEX) {
        return Err(format!("{INDEX} is missing"));
    }
    let mut selected = vec![INDEX.to_owned()];
    for (folder, stem) in FOLDERS {
        let is_t5 = folder.ends_with("_3");
        if is_t5 && skip_t5 {
            continue;
        }
        let in_folder = names.iter().filter_map(|name| name.strip_prefix(folder)?.strip_prefix('/'));
        // The names come from a server. No file may be written outside the folder.
        let files: Vec<&str> = in_folder.filter(|name| !name.contains(['/', '\\', ':'])).collect();
        let is_small =
            |name: &str| (name.ends_with(".json") && !name.contains(".safetensors.index")) || name.ends_with(".txt");
        selected.extend(files.iter().filter(|name| is_small(name)).map(|name| format!("{folder}/{name}")));
        let Some(stem) = stem else { continue };
        let weights = weights(&files, stem);
        // The pipeline also works without T5.
        if weights.is_empty() && !is_t5 {
            return Err(format!("{folder}/{stem}.safetensors is missing"));
        }
        selected.extend(weights.into_iter().map(|name| format!("{folder}/{name}")));
    }
    Ok(selected)
}

/// Returns the files of the variant that the pipeline opens.
fn weights<'a>(files: &[&'a str], stem: &str) -> Vec<&'a str> {
    let mut of_variants = ["", ".fp16", ".bf16"].into_iter().map(|variant| {
        let single = format!("{stem}{variant}.safetensors");
        if let Some(name) = files.iter().find(|name| **name == single) {
            return vec![*name];
        }
        let index = match variant {
            "" => format!("{stem}.safetensors.index.json"),
            _ => format!("{stem}.safetensors.index{variant}.json"),
        };
        if !files.contains(&&*index) {
            return Vec::new();
        }
        let prefix = format!("{stem}{variant}-");
        let is_shard = |name: &str| {
            let numbers = name.strip_prefix(&*prefix).and_then(|name| name.strip_suffix(".safetensors"));
            numbers.is_some_and(|numbers| numbers.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
        };
        files.iter().copied().filter(|name| *name == index || is_shard(name)).collect()
    });
    of_variants.find(|files| !files.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of `stabilityai/stable-diffusion-3.5-medium`, and more variants.
    const NAMES: &str = "README.md model_index.json sd3.5_medium.safetensors scheduler/scheduler_config.json \
        text_encoder/config.json text_encoder/model.fp16.safetensors text_encoder/model.safetensors \
        text_encoder_2/config.json text_encoder_2/model.fp16.safetensors text_encoder_2/pytorch_model.bin \
        text_encoder_3/config.json text_encoder_3/model-00001-of-00002.safetensors \
        text_encoder_3/model-00002-of-00002.safetensors text_encoder_3/model.fp16-00001-of-00001.safetensors \
        text_encoder_3/model.safetensors.index.fp16.json text_encoder_3/model.safetensors.index.json \
        text_encoders/t5xxl_fp16.safetensors tokenizer/merges.txt tokenizer/vocab.json tokenizer_2/vocab.json \
        tokenizer_3/spiece.model tokenizer_3/tokenizer.json transformer/config.json \
        transformer/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors \
        vae/../../escaped.json transformer/\\escaped.json";

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn only_the_files_that_the_pipeline_reads_are_selected() {
        let expected = "model_index.json scheduler/scheduler_config.json tokenizer/merges.txt tokenizer/vocab.json \
            tokenizer_2/vocab.json tokenizer_3/tokenizer.json text_encoder/config.json text_encoder/model.safetensors \
            text_encoder_2/config.json text_encoder_2/model.fp16.safetensors text_encoder_3/config.json \
            text_encoder_3/model-00001-of-00002.safetensors text_encoder_3/model-00002-of-00002.safetensors \
            text_encoder_3/model.safetensors.index.json transformer/config.json \
            transformer/diffusion_pytorch_model.safetensors vae/config.json vae/diffusion_pytorch_model.safetensors";
        assert_eq!(select(&names(NAMES), false).unwrap(), names(expected));
        let without_t5 = select(&names(NAMES), true).unwrap();
        assert!(!without_t5.iter().any(|name| name.contains("_3/")));
        assert_eq!(without_t5.len(), names(expected).len() - 5);
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |removed: &str| {
            let names: Vec<String> = names(NAMES).into_iter().filter(|name| name != removed).collect();
            select(&names, false)
        };
        assert_eq!(without("model_index.json").unwrap_err(), "model_index.json is missing");
        let missing = "vae/diffusion_pytorch_model.safetensors";
        assert_eq!(without(missing).unwrap_err(), format!("{missing} is missing"));
    }
}
