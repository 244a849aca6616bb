//! Corrupt models and invalid parameters result in errors that name the file, tensor or parameter and say what to do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lumenfall_diffusion::{Callbacks, Error, LoadOptions, ModelFiles, Parameters, Pipeline, RgbImage};
use tempfile::TempDir;

const DENOISER: &str = "transformer/diffusion_pytorch_model.safetensors";

/// Returns a copy of the golden model.
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

fn pipeline(model: &TempDir) -> Result<Pipeline, Error> {
    Pipeline::open(&files(model), &LoadOptions::default())
}

/// Asserts that opening the model returns an error that contains each of `expected`.
fn assert_refused(model: &TempDir, expected: &[&str]) {
    let message = pipeline(model).unwrap_err().to_string();
    for part in expected.iter().chain(&["download"]) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn change(model: &TempDir, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = model.path().join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn small_image() -> Parameters {
    let mut parameters = Parameters::new("a star");
    (parameters.width, parameters.height, parameters.steps) = (Some(32), Some(32), Some(1));
    parameters
}

#[test]
fn a_missing_file_is_named() {
    let complete = model();
    pipeline(&complete).unwrap();
    for file in [
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
        fs::remove_file(model.path().join(file)).unwrap();
        assert_refused(&model, &[file]);
    }
    // All of them are named at once.
    let model = model();
    let several = ["vae/config.json", "text_encoder_2/model.safetensors", "tokenizer_3/tokenizer.json"];
    several.iter().for_each(|file| fs::remove_file(model.path().join(file)).unwrap());
    assert_refused(&model, &several);
    assert_refused(&tempfile::tempdir().unwrap(), &["scheduler_config.json", "transformer/config.json"]);
}

#[test]
fn a_t5_encoder_that_cannot_be_read_is_not_left_out() {
    let model = model();
    fs::remove_file(model.path().join("text_encoder_3/config.json")).unwrap();
    assert_refused(&model, &["text_encoder_3/config.json"]);
    fs::remove_dir_all(model.path().join("text_encoder_3")).unwrap();
    pipeline(&model).unwrap();
}

#[test]
fn a_truncated_weight_file_is_reported_with_both_lengths() {
    let model = model();
    let length = fs::metadata(model.path().join(DENOISER)).unwrap().len();
    change(&model, DENOISER, |bytes| bytes.truncate(bytes.len() - 1000));
    assert_refused(&model, &[DENOISER, "truncated", &length.to_string(), &(length - 1000).to_string()]);
}

#[test]
fn a_file_that_is_not_safetensors_is_refused() {
    let contents: [&[u8]; 5] =
        [b"", b"abc", b"\x89PNG\r\n\x1a\n and more of it", b"\x10\0\0\0\0\0\0\0{\"no\": \"header\"}", &[255; 64]];
    for content in contents {
        let model = model();
        fs::write(model.path().join(DENOISER), content).unwrap();
        assert_refused(&model, &[DENOISER, "safetensors"]);
    }
}

#[test]
fn a_weight_file_of_another_component_is_refused() {
    let model = model();
    fs::copy(model.path().join("vae/diffusion_pytorch_model.safetensors"), model.path().join(DENOISER)).unwrap();
    assert_refused(&model, &["at least 49 others are missing", "another model"]);
}

#[test]
fn all_missing_tensors_are_named() {
    let model = model();
    change(&model, "text_encoder/model.safetensors", |bytes| {
        for start in 0..bytes.len().min(20_000) {
            if bytes[start..].starts_with(b"fc1.") {
                bytes[start..start + 3].copy_from_slice(b"gc1");
            }
        }
    });
    let missing = "layers.0.mlp.fc1.weight` and 5 others are missing (text_model.encoder.layers.0.mlp.fc1.bias, \
                   text_model.encoder.layers.1.mlp.fc1.weight, ";
    assert_refused(&model, &["text_encoder/model.safetensors", missing]);
}

#[test]
fn an_unsupported_configuration_is_reported_with_its_key() {
    for (file, from, to, expected) in [
        // The shapes of the weights differ from the configuration.
        ("transformer", "\"pos_embed_max_size\": 12", "\"pos_embed_max_size\": 16", &["pos_embed"][..]),
        ("text_encoder", "\"intermediate_size\": 32", "\"intermediate_size\": 48", &["fc1", "[32, 16]", "[48, 16]"]),
        // The configuration has another number of layers than the weights.
        ("transformer", "\"num_layers\": 3", "\"num_layers\": 2", &["`num_layers` is 2", "has 3"]),
        ("transformer", "\"num_layers\": 3", "\"num_layers\": 4", &["`num_layers` is 4", "has 3"]),
        ("transformer", "    0,\n    1\n", "    0\n", &["`dual_attention_layers` is [0]", "has [0, 1]"]),
        (
            "text_encoder",
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 2",
            &["`num_hidden_layers` is 2", "has 3"],
        ),
        ("text_encoder_3", "\"num_layers\": 2", "\"num_layers\": 1", &["`num_layers` is 1", "has 2"]),
        ("vae", "\"layers_per_block\": 2", "\"layers_per_block\": 1", &["`layers_per_block` is 1", "has 2"]),
        ("transformer", "\"sample_size\": 12", "\"sample_size\": 26", &["`sample_size` is 26", "(2) up to 24"]),
        ("transformer", "\"sample_size\": 12", "\"sample_size\": 11", &["`sample_size` is 11", "(2) up to 24"]),
        // The components do not belong together.
        (
            "transformer",
            "\"pooled_projection_dim\": 40",
            "\"pooled_projection_dim\": 2048",
            &["pooled_projection_dim", "different models"],
        ),
        (
            "transformer",
            "\"joint_attention_dim\": 64",
            "\"joint_attention_dim\": 72",
            &["joint_attention_dim", "different models"],
        ),
        ("vae", "\"latent_channels\": 16", "\"latent_channels\": 8", &["latent_channels", "different models"]),
        // The component belongs to another kind of model.
        ("transformer", "\"rms_norm\"", "\"layer_norm\"", &["transformer/config.json", "qk_norm"]),
        ("transformer", "\"out_channels\": 16", "\"out_channels\": 8", &["transformer/config.json", "out_channels"]),
        ("vae", "\"in_channels\": 3", "\"in_channels\": 1", &["vae/config.json", "in_channels"]),
        ("text_encoder", "\"quick_gelu\"", "\"relu\"", &["text_encoder/config.json", "hidden_act"]),
        ("text_encoder_3", "\"gated-gelu\"", "\"relu\"", &["text_encoder_3/config.json", "feed_forward_proj"]),
        ("transformer", "\"qk_norm\": \"rms_norm\"", "\"qk_norm\": null", &["is Stable Diffusion 3 Medium"]),
        ("vae", "\"use_quant_conv\": false", "\"use_quant_conv\": true", &["vae/config.json", "use_quant_conv"]),
        ("vae", "\"silu\"", "\"gelu\"", &["vae/config.json", "act_fn"]),
        (
            "vae",
            "\"mid_block_add_attention\": true",
            "\"mid_block_add_attention\": false",
            &["mid_block_add_attention"],
        ),
        ("vae", "\"latents_mean\": null", "\"latents_mean\": [0.5]", &["vae/config.json", "latents_mean"]),
        ("vae", "\"UpDecoderBlock2D\"", "\"AttnUpDecoderBlock2D\"", &["vae/config.json", "up_block_types"]),
        // The file is corrupt.
        ("transformer", "\"patch_size\": 2", "\"patch_size\": 9000000000", &["patch_size", "9000000000"]),
        ("text_encoder_3", "\"relative_attention_num_buckets\": 32", "\"relative_attention_num_buckets\": 1", &["32"]),
        ("transformer", "{", "", &["transformer/config.json"]),
        ("transformer", "\"patch_size\": 2", "\"patch_size\": 0", &["transformer/config.json", "patch_size"]),
        ("transformer", "\"num_layers\": 3", "\"num_layers\": -3", &["transformer/config.json"]),
    ] {
        let model = model();
        let path = model.path().join(file).join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
        assert_refused(&model, expected);
    }
}

/// Asserts that opening the model returns an error quickly.
fn assert_refused_quickly(model: &TempDir, expected: &[&str]) {
    let start = Instant::now();
    assert_refused(model, expected);
    // The goal is 1 s; an idle machine needs a fraction of that.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn files_that_are_too_long_are_refused_before_they_are_read() {
    for file in ["transformer/config.json", "text_encoder_3/model.safetensors.index.json"] {
        let model = model();
        // The file has no content and takes no space.
        fs::File::create(model.path().join(file)).unwrap().set_len(30 << 30).unwrap();
        assert_refused_quickly(&model, &[file, "32212254720 bytes"]);
    }
}

#[test]
fn an_index_that_names_wrong_files_is_refused() {
    let index = "text_encoder_3/model.safetensors.index.json";
    let absent = "model-00007-of-00002.safetensors";
    for (name, expected) in [(absent, absent), ("", index), ("..", index), ("../vae/config.json", index)] {
        let model = model();
        let content = format!(r#"{{"weight_map": {{"shared.weight": "{name}"}}}}"#);
        fs::write(model.path().join(index), content).unwrap();
        assert_refused(&model, &[expected]);
    }
    let model = model();
    fs::write(model.path().join(index), "{\"weight_map\": []}").unwrap();
    assert_refused(&model, &[index]);
}

#[cfg(unix)]
#[test]
fn named_pipes_and_cycles_of_links_are_refused() {
    for file in ["transformer/config.json", DENOISER, "scheduler/scheduler_config.json", "tokenizer_3/tokenizer.json"] {
        let model = model();
        let path = model.path().join(file);
        fs::remove_file(&path).unwrap();
        let created = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(created.success());
        // Nothing writes to the pipe, so that reading it would never end.
        assert_refused_quickly(&model, &[file]);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let message = pipeline(&model).unwrap_err().to_string();
        assert!(message.contains(file), "{message}");
    }
    let repository = tempfile::tempdir().unwrap();
    fs::create_dir_all(repository.path().join("snapshots/a/scheduler")).unwrap();
    fs::create_dir(repository.path().join("refs")).unwrap();
    let created = std::process::Command::new("mkfifo").arg(repository.path().join("refs/main")).status().unwrap();
    assert!(created.success());
    ModelFiles::find(repository.path()).unwrap();
}

#[test]
fn a_value_that_is_not_finite_is_reported_with_its_tensor() {
    for value in [f32::NAN, f32::INFINITY] {
        let model = model();
        change(&model, DENOISER, |bytes| {
            let data_start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
            bytes[data_start + 40..data_start + 44].copy_from_slice(&value.to_le_bytes());
        });
        // Opening reads only headers.
        let result = pipeline(&model).unwrap().generate(&small_image(), Callbacks::none());
        let message = result.unwrap_err().to_string();
        assert!(message.contains("not finite") && message.contains(DENOISER) && message.contains('`'), "{message}");
    }
}

#[test]
fn a_corrupt_t5_block_is_reported_when_it_is_read() {
    let model = model();
    change(&model, "text_encoder_3/model-00002-of-00002.safetensors", |bytes| {
        bytes.last_chunk_mut::<4>().unwrap().copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let result = pipeline(&model).and_then(|pipeline| pipeline.generate(&small_image(), Callbacks::none()));
    let message = result.unwrap_err().to_string();
    assert!(message.contains("not finite") && message.contains("text_encoder_3"), "{message}");
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let pipeline = pipeline(&model()).unwrap();
    let steps = "use a number from 1 to 1000 (28 is a good default)";
    let side = "use a multiple of 16 up to 192";
    let guidance = "use 1 (no guidance) or more (4.5 is a good default)";
    type Case<'a> = (&'a str, &'a str, fn(&mut Parameters));
    let cases: [Case<'_>; 11] = [
        ("steps", steps, |p| p.steps = Some(0)),
        ("steps", steps, |p| p.steps = Some(1001)),
        ("width", side, |p| p.width = Some(0)),
        ("height", side, |p| p.height = Some(33)),
        ("width", side, |p| p.width = Some(4000)),
        ("n", "request at least 1 image", |p| p.count = 0),
        ("guidance", guidance, |p| p.guidance.scale = f32::NAN),
        ("negative_prompt", "set `guidance` to a value above 1", |p| {
            (p.guidance.scale, p.negative_prompt) = (1.0, Some("blue".into()));
        }),
        ("t5_negative_prompt", "set `guidance` to a value above 1", |p| {
            (p.guidance.scale, p.text.t5_negative_prompt) = (1.0, Some("blue".into()));
        }),
        ("t5_tokens", "use a number from 1 to 512 (256 is the default)", |p| p.t5_tokens = Some(0)),
        ("t5_tokens", "use a number from 1 to 512 (256 is the default)", |p| p.t5_tokens = Some(513)),
    ];
    for (parameter, remedy, change) in cases {
        let mut parameters = small_image();
        change(&mut parameters);
        let message = pipeline.generate(&parameters, Callbacks::none()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{parameter}` ")) && message.ends_with(remedy), "{message}");
    }
    let source = RgbImage::new(32, 32, vec![128; 32 * 32 * 3]).unwrap();
    for strength in [0.0, -1.0, 1.5, f32::NAN] {
        let error = pipeline.edit(&source, strength, &small_image(), Callbacks::none()).unwrap_err();
        assert!(matches!(error, Error::Parameter { parameter: "strength", .. }), "{strength}: {error}");
        assert!(error.to_string().ends_with("use a number above 0 (almost no change) and up to 1 (full change)"));
    }
}

#[test]
fn a_cancelled_request_stops_at_the_next_block() {
    let model = model();
    let pipeline = pipeline(&model).unwrap();
    let calls = AtomicU32::new(0);
    let is_cancelled = || calls.fetch_add(1, Ordering::Relaxed) >= 5;
    let mut parameters = small_image();
    parameters.steps = Some(1000);
    let error = pipeline.generate(&parameters, Callbacks::new(&is_cancelled, &|_| {})).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}
