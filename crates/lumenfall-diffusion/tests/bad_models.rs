//! What a damaged or incomplete model folder is answered with: the file, the tensor and the remedy, never a panic.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use lumenfall_diffusion::{Control, Error, LoadOptions, ModelFiles, Parameters, Picture, Pipeline};
use tempfile::TempDir;

const DENOISER: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A copy of the golden model that a test may damage.
fn model() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model");
    for part in fs::read_dir(source).unwrap().map(Result::unwrap).filter(|part| part.path().is_dir()) {
        let target = copy.path().join(part.file_name());
        fs::create_dir(&target).unwrap();
        for file in fs::read_dir(part.path()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    copy
}

fn files(model: &TempDir) -> ModelFiles {
    ModelFiles::Folder(model.path().to_path_buf())
}

/// The message of a quick check, which loading must give as well. The remedy for a bad folder is always a better one.
fn refusal(model: &TempDir) -> String {
    let quick = Pipeline::check(&files(model)).unwrap_err().to_string();
    let loading = Pipeline::load(&files(model), &LoadOptions::default()).unwrap_err().to_string();
    assert_eq!(quick, loading);
    assert!(quick.contains("download"), "{quick}");
    quick
}

fn rewrite(path: PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn rewrite_text(path: PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Where the data of a safetensors file begins.
fn data_start(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize
}

fn small(prompt: &str) -> Parameters {
    let mut parameters = Parameters::new(prompt);
    parameters.width = Some(32);
    parameters.height = Some(32);
    parameters.steps = Some(1);
    parameters
}

#[test]
fn a_whole_model_passes_the_check() {
    Pipeline::check(&files(&model())).unwrap();
}

#[test]
fn every_missing_part_is_named() {
    for part in [
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        DENOISER,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/model.safetensors",
        "text_encoder_3/model-00002-of-00002.safetensors",
        "tokenizer/vocab.json",
        "tokenizer_3/tokenizer.json",
    ] {
        let model = model();
        fs::remove_file(model.path().join(part)).unwrap();
        let message = refusal(&model);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_empty_folder_is_refused() {
    let model = tempfile::tempdir().unwrap();
    assert!(refusal(&model).contains("scheduler_config.json"));
}

#[test]
fn a_truncated_weight_file_tells_both_lengths() {
    let model = model();
    let length = fs::metadata(model.path().join(DENOISER)).unwrap().len();
    rewrite(model.path().join(DENOISER), |bytes| bytes.truncate(bytes.len() - 1000));
    let message = refusal(&model);
    assert!(message.contains(DENOISER) && message.contains("cut off"), "{message}");
    assert!(message.contains(&length.to_string()) && message.contains(&(length - 1000).to_string()), "{message}");
}

#[test]
fn files_that_are_no_safetensors_are_told_so() {
    let contents: [&[u8]; 5] =
        [b"", b"abc", b"\x89PNG\r\n\x1a\n and more of it", b"\x10\0\0\0\0\0\0\0{\"no\": \"header\"}", &[255; 64]];
    for content in contents {
        let model = model();
        fs::write(model.path().join(DENOISER), content).unwrap();
        let message = refusal(&model);
        assert!(message.contains(DENOISER) && message.contains("safetensors"), "{message}");
    }
}

#[test]
fn a_weight_file_of_another_part_is_found_out() {
    let model = model();
    fs::copy(model.path().join("vae/diffusion_pytorch_model.safetensors"), model.path().join(DENOISER)).unwrap();
    let message = refusal(&model);
    assert!(message.contains("is missing") && message.contains("another model"), "{message}");
}

#[test]
fn a_tensor_of_the_wrong_shape_tells_both_shapes() {
    let model = model();
    rewrite_text(
        model.path().join("transformer/config.json"),
        "\"pos_embed_max_size\": 12",
        "\"pos_embed_max_size\": 16",
    );
    assert!(refusal(&model).contains("pos_embed"));

    let model = self::model();
    rewrite_text(
        model.path().join("text_encoder/config.json"),
        "\"intermediate_size\": 32",
        "\"intermediate_size\": 48",
    );
    let message = refusal(&model);
    assert!(message.contains("fc1") && message.contains("[32, 16]") && message.contains("[48, 16]"), "{message}");
}

#[test]
fn parts_of_different_models_are_told_apart() {
    for (part, from, to, named) in [
        ("transformer", "\"pooled_projection_dim\": 40", "\"pooled_projection_dim\": 2048", "pooled_projection_dim"),
        ("transformer", "\"joint_attention_dim\": 64", "\"joint_attention_dim\": 72", "joint_attention_dim"),
        ("vae", "\"latent_channels\": 16", "\"latent_channels\": 8", "latent_channels"),
    ] {
        let model = model();
        rewrite_text(model.path().join(part).join("config.json"), from, to);
        let message = refusal(&model);
        assert!(message.contains(named) && message.contains("different models"), "{message}");
    }
}

#[test]
fn configurations_of_other_models_name_the_key() {
    for (part, from, to, key) in [
        ("transformer", "\"rms_norm\"", "\"layer_norm\"", "qk_norm"),
        ("transformer", "\"out_channels\": 16", "\"out_channels\": 8", "out_channels"),
        ("vae", "\"in_channels\": 3", "\"in_channels\": 1", "in_channels"),
        ("text_encoder", "\"quick_gelu\"", "\"relu\"", "hidden_act"),
        ("text_encoder_3", "\"gated-gelu\"", "\"relu\"", "feed_forward_proj"),
    ] {
        let (model, name) = (model(), format!("{part}/config.json"));
        rewrite_text(model.path().join(&name), from, to);
        let message = refusal(&model);
        assert!(message.contains(&name) && message.contains(key), "{message}");
    }
}

#[test]
fn broken_json_and_zero_dimensions_are_refused() {
    for (from, to) in
        [("{", ""), ("\"patch_size\": 2", "\"patch_size\": 0"), ("\"num_layers\": 3", "\"num_layers\": -3")]
    {
        let model = model();
        rewrite_text(model.path().join("transformer/config.json"), from, to);
        assert!(refusal(&model).contains("transformer/config.json"));
    }
}

#[test]
fn a_value_that_is_not_finite_names_its_tensor() {
    for poison in [f32::NAN, f32::INFINITY] {
        let model = model();
        rewrite(model.path().join(DENOISER), |bytes| {
            let start = data_start(bytes);
            bytes[start + 40..start + 44].copy_from_slice(&poison.to_le_bytes());
        });
        // The header is fine: only reading the values finds it.
        Pipeline::check(&files(&model)).unwrap();
        let message = Pipeline::load(&files(&model), &LoadOptions::default()).unwrap_err().to_string();
        assert!(message.contains("not finite") && message.contains(DENOISER) && message.contains('`'), "{message}");
    }
}

#[test]
fn a_damaged_t5_block_is_found_when_it_is_read() {
    let model = model();
    rewrite(model.path().join("text_encoder_3/model-00002-of-00002.safetensors"), |bytes| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let pipeline = Pipeline::load(&files(&model), &LoadOptions::default());
    let message = match pipeline {
        Ok(pipeline) => pipeline.generate(&small("a star"), Control::none()).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    assert!(message.contains("not finite") && message.contains("text_encoder_3"), "{message}");
}

#[test]
fn parameters_out_of_range_are_named() {
    let model = model();
    let pipeline = Pipeline::load(&files(&model), &LoadOptions::default()).unwrap();
    let refused = |parameter: &str, remedy: &str, change: &dyn Fn(&mut Parameters)| {
        let mut parameters = small("a star");
        change(&mut parameters);
        let message = pipeline.generate(&parameters, Control::none()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{parameter}` ")) && message.ends_with(remedy), "{message}");
    };
    refused("steps", "give at least 1, 28 is usual", &|p| p.steps = Some(0));
    refused("steps", "give at most 1000, 28 is usual", &|p| p.steps = Some(1001));
    refused("width", "ask for a multiple of 16, at most 192", &|p| p.width = Some(0));
    refused("height", "ask for a multiple of 16, at most 192", &|p| p.height = Some(33));
    refused("width", "ask for a multiple of 16, at most 192", &|p| p.width = Some(4000));
    refused("n", "ask for at least 1 image", &|p| p.count = 0);
    refused("guidance", "give 1 (off) or more, 4.5 is usual", &|p| p.guidance = Some(f32::NAN));
    refused("strength", "leave it out", &|p| p.strength = Some(0.5));
    refused("negative_prompt", "raise `guidance` above 1", &|p| {
        p.guidance = Some(1.0);
        p.negative_prompt = Some("blue".into());
    });
    let source = Picture::from_rgb(32, 32, vec![128; 32 * 32 * 3]).unwrap();
    for strength in [0.0, -1.0, 1.5, f32::NAN] {
        let mut parameters = small("a star");
        parameters.strength = Some(strength);
        let error = pipeline.edit(&source, &parameters, Control::none()).unwrap_err();
        assert!(matches!(error, Error::Parameter { parameter: "strength", .. }), "{strength}: {error}");
        assert!(error.to_string().ends_with("give a number above 0 (hardly any change), up to 1"), "{error}");
    }
}

#[test]
fn work_stops_when_it_is_told_to() {
    let model = model();
    let pipeline = Pipeline::load(&files(&model), &LoadOptions::default()).unwrap();
    let asked = std::sync::atomic::AtomicU32::new(0);
    let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= 5;
    let mut parameters = small("a star");
    parameters.steps = Some(1000);
    let error = pipeline.generate(&parameters, Control { stop: &stop, progress: &|_| {} }).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 6);
}
