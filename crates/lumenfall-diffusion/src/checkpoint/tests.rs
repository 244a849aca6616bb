//! Opens the golden model in other layouts, which `tools/layouts.py` wrote with public packages.

mod variants;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use sha2::{Digest, Sha256};

use super::*;
use crate::parameters::{Callbacks, LoadOptions, Parameters};
use crate::pipeline::Pipeline;

/// The golden model has 2 heads in each CLIP encoder, and 4 groups in the norms of its VAE.
const GOLDEN: Conventions = Conventions { clip_heads: |_| 2, vae_groups: 4, sample_size: 12, position_side: 12 };

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn layout(name: &str) -> PathBuf {
    golden("layouts").join(name)
}

fn folder() -> Checkpoint {
    Checkpoint::open(&ModelFiles::Folder(golden("model"))).unwrap()
}

/// Returns the files of a complete model.
fn parts(denoiser: &str, t5: &str) -> PartFiles {
    let mut files = PartFiles::default();
    for kind in [PartKind::Vae, PartKind::ClipL, PartKind::ClipG] {
        files.set(kind, layout("bundle.safetensors"));
    }
    files.set(PartKind::Denoiser, layout(denoiser));
    files.set(PartKind::T5, layout(t5));
    files
}

/// Replaces the tokenizers by those of the golden model, because its vocabulary is smaller than the real one.
fn with_golden_tokenizers(checkpoint: Checkpoint) -> Checkpoint {
    let tokenizers = folder();
    let t5 = tokenizers.t5.unwrap().0;
    Checkpoint {
        clip_l: (tokenizers.clip_l.0, checkpoint.clip_l.1),
        clip_g: (tokenizers.clip_g.0, checkpoint.clip_g.1),
        t5: checkpoint.t5.map(|(_, part)| (t5, part)),
        ..checkpoint
    }
}

/// Opens the golden model with a denoiser in Q8_0.
pub(crate) fn quantised() -> Checkpoint {
    let files = parts("denoiser-Q8_0.gguf", "t5xxl.gguf");
    with_golden_tokenizers(Checkpoint::from_parts(&files, &GOLDEN).unwrap())
}

fn generate(checkpoint: Checkpoint) -> Vec<u8> {
    let pipeline = Pipeline::new(with_golden_tokenizers(checkpoint), &LoadOptions::default()).unwrap();
    let mut parameters = Parameters::new("a red circle");
    (parameters.width, parameters.height, parameters.steps) = (Some(64), Some(48), Some(3));
    (parameters.seed, parameters.t5_tokens) = (5, Some(32));
    pipeline.generate(&parameters, Callbacks::none()).unwrap().images[0].pixels().to_vec()
}

/// Returns the peak signal-to-noise ratio in decibels.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares).log10()
}

#[test]
fn every_layout_with_f32_weights_generates_the_same_image() {
    let expected = generate(folder());
    let bundle = Checkpoint::from_parts(&parts("bundle.safetensors", "t5xxl.gguf"), &GOLDEN).unwrap();
    assert_eq!(bundle.denoiser.config, folder().denoiser.config);
    assert!(generate(bundle) == expected, "the images differ");
}

#[test]
fn weights_with_less_precision_generate_a_similar_image() {
    let expected = generate(folder());
    for (denoiser, t5, least) in
        [("denoiser-Q8_0.gguf", "t5xxl.gguf", 30.0), ("bundle.safetensors", "t5xxl_fp8_scaled.safetensors", 30.0)]
    {
        let image = generate(Checkpoint::from_parts(&parts(denoiser, t5), &GOLDEN).unwrap());
        let psnr = psnr(&image, &expected);
        assert!(image != expected && psnr > least, "{denoiser} and {t5}: {psnr} dB");
    }
}

/// Converts values to Q8_0, as ggml does.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let block = |values: &[f32; 32]| {
        let scale = values.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let quantised = values.map(|value| (value * inverse).round() as i8 as u8);
        [f16::from_f32(scale).to_le_bytes().as_slice(), &quantised].concat()
    };
    values.as_chunks().0.iter().flat_map(block).collect()
}

/// Returns the demonstration model's denoiser as a GGUF file, with the matrices in Q8_0 and all other tensors in F32, and the
/// hash of the quantised bytes.
fn quantised_demo_denoiser() -> (Vec<u8>, String) {
    let weights = Checkpoint::open(&crate::demo_files()).unwrap().denoiser.weights;
    let tensors: BTreeMap<_, _> = weights.shapes().collect();
    let (mut infos, mut data, mut hash) = (Vec::new(), Vec::new(), Sha256::new());
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    for (name, shape) in &tensors {
        let values = weights.root().tensor(name, shape).unwrap();
        let (type_number, bytes) = match shape {
            [_, width] if width.is_multiple_of(32) => {
                let bytes = q8_0(values.values());
                hash.update(&bytes);
                (8u32, bytes)
            }
            _ => (0, values.values().iter().flat_map(|value| value.to_le_bytes()).collect()),
        };
        infos.extend(text(name));
        infos.extend((shape.len() as u32).to_le_bytes());
        infos.extend(shape.iter().rev().flat_map(|dimension| (*dimension as u64).to_le_bytes()));
        infos.extend(type_number.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    // The version, and the numbers of tensors and of metadata values.
    let mut file = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes(), &[0; 8]].concat();
    file.extend(infos);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    (file, format!("{:x}", hash.finalize()))
}

#[test]
fn the_demonstration_model_in_q8_0_generates_almost_the_same_images() {
    let (file, hash) = quantised_demo_denoiser();
    // `tools/layouts.py` computed the hash with the package gguf.
    assert_eq!(hash, std::fs::read_to_string(layout("demo-q8_0.sha256")).unwrap().trim());
    let open = |file: Option<&[u8]>| {
        let mut checkpoint = Checkpoint::open(&crate::demo_files()).unwrap();
        if let Some(file) = file {
            let container = Container::in_memory(file).unwrap();
            checkpoint.denoiser.weights = layout::weights(&container, &layout::find_parts(&container)[0]).unwrap();
        }
        Pipeline::new(checkpoint, &LoadOptions::default()).unwrap()
    };
    let (pipeline, quantised) = (open(None), open(Some(&file)));
    for prompt in
        ["a green letter R on a black background", "a pink diamond next to a green cross on a white background"]
    {
        let parameters = Parameters { steps: Some(14), ..Parameters::new(prompt) };
        let [expected, image] = [&pipeline, &quantised]
            .map(|pipeline| pipeline.generate(&parameters, Callbacks::none()).unwrap().images[0].pixels().to_vec());
        let psnr = psnr(&image, &expected);
        assert!(image != expected && psnr >= 30.0, "{prompt}: {psnr} dB");
    }
}

#[test]
fn the_parts_of_a_model_are_found_by_the_content_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(layout(from), &to).unwrap();
        to
    };
    let bundle = copy("bundle.safetensors", "sd3.5.safetensors");
    let t5 = copy("t5xxl.gguf", "text_encoders/encoder.gguf");
    std::fs::write(folder.path().join("corrupt.safetensors"), "no header").unwrap();
    for path in [&bundle, folder.path()] {
        let ModelFiles::Parts(files) = ModelFiles::find(path).unwrap() else { panic!("not parts") };
        let found: Vec<_> = files.iter().collect();
        let expected =
            PartKind::ALL.map(|kind| (kind, if kind == PartKind::T5 { t5.as_path() } else { bundle.as_path() }));
        assert_eq!(found, expected);
    }
    let denoiser = copy("denoiser-Q8_0.gguf", "sub/denoiser.gguf");
    let error = ModelFiles::find(&denoiser).unwrap_err().to_string();
    assert!(error.contains("has no VAE, CLIP-L, CLIP-G in or beside") && error.contains("denoiser.gguf"), "{error}");
    copy("t5xxl_fp8_scaled.safetensors", "t5.safetensors");
    let error = ModelFiles::find(&bundle).unwrap_err().to_string();
    assert!(error.contains("several") && error.contains("encoder.gguf") && error.contains("t5.safetensors"), "{error}");

    assert!(
        matches!(ModelFiles::find(golden("model")).unwrap(), ModelFiles::Folder(found) if found == golden("model"))
    );
    let error = ModelFiles::find(folder.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn the_cache_of_the_hub_contains_a_snapshot() {
    let repository = tempfile::tempdir().unwrap();
    for revision in ["aaaa", "bbbb"] {
        std::fs::create_dir_all(repository.path().join("snapshots").join(revision).join("scheduler")).unwrap();
    }
    let found = || match ModelFiles::find(repository.path()).unwrap() {
        ModelFiles::Folder(folder) => folder.file_name().unwrap().to_string_lossy().into_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(), "bbbb");
    std::fs::create_dir(repository.path().join("refs")).unwrap();
    std::fs::write(repository.path().join("refs/main"), "aaaa\n").unwrap();
    assert_eq!(found(), "aaaa");
}

#[test]
fn scaled_weights_have_their_scales_in_a_folder_too() {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&golden("model"), copy.path());
    let t5 = copy.path().join("text_encoder_3");
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    {
        std::fs::remove_file(t5.join(name)).unwrap();
    }
    std::fs::copy(layout("t5xxl_fp8_scaled.safetensors"), t5.join("model.safetensors")).unwrap();
    let scaled = generate(Checkpoint::open(&ModelFiles::Folder(copy.path().to_path_buf())).unwrap());
    let expected =
        Checkpoint::from_parts(&parts("bundle.safetensors", "t5xxl_fp8_scaled.safetensors"), &GOLDEN).unwrap();
    assert!(scaled == generate(expected));
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(std::io::Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => std::fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
}

#[test]
fn an_unsupported_kind_of_quantisation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t5.safetensors");
    for suffix in ["comfy_quant", "weight_scale_inv"] {
        let tensor = format!("encoder.block.0.layer.0.SelfAttention.q.{suffix}");
        safetensors(&path, &[("encoder.block.0.layer.0.SelfAttention.q.weight", &[1]), (&tensor, &[1])]);
        let mut files = parts("bundle.safetensors", "t5xxl.gguf");
        files.set(PartKind::T5, &path);
        let error = Checkpoint::from_parts(&files, &GOLDEN).unwrap_err().to_string();
        assert!(error.contains(&tensor) && error.contains("not supported"), "{error}");
    }
}

/// Writes a safetensors file with tensors of one value each, or of the given shape.
fn safetensors(path: &Path, tensors: &[(&str, &[usize])]) {
    let mut offset = 0;
    let entries = tensors.iter().map(|(name, shape)| {
        let start = offset;
        offset += 4 * shape.iter().product::<usize>();
        ((*name).to_owned(), serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, offset] }))
    });
    let header = serde_json::Value::Object(entries.collect()).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + offset, 0);
    std::fs::write(path, file).unwrap();
}

#[test]
fn a_file_of_another_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (tensor, expected) in [
        ("double_blocks.0.img_attn.qkv.weight", "is a FLUX model"),
        ("model.diffusion_model.input_blocks.0.0.weight", "is a Stable Diffusion 1, 2 or XL model"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "is a LoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "is a LoRA"),
        ("weight", "contains no part of Stable Diffusion 3.5"),
    ] {
        safetensors(&path, &[(tensor, &[1])]);
        let error = ModelFiles::find(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("model.safetensors"), "{tensor}: {error}");
    }
    safetensors(&path, &[("decoder.mid.block_1.conv1.weight", &[1])]);
    let error = ModelFiles::find(&path).unwrap_err().to_string();
    assert!(error.contains("has no denoiser, CLIP-L, CLIP-G in or beside"), "{error}");
    // The file that was named for a part contains another one.
    let error = Checkpoint::from_parts(&parts("t5xxl.gguf", "t5xxl.gguf"), &GOLDEN).unwrap_err().to_string();
    assert!(error.contains("contains no denoiser, but a T5"), "{error}");
}
