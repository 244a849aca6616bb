//! Files as other programs write them, with tensors of the golden model.

use half::bf16;
use lumenfall_kernels::Format;

use super::*;
use crate::models::Mmdit;
use crate::weights::Weights;

/// A tensor of a file.
#[derive(Clone)]
struct Entry {
    /// The name of the type in a safetensors file.
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    fn f32(shape: &[usize], values: &[f32]) -> Self {
        Self { dtype: "F32", shape: shape.into(), bytes: values.iter().flat_map(|it| it.to_le_bytes()).collect() }
    }

    fn values(&self) -> Vec<f32> {
        self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

type Tensors = BTreeMap<String, Entry>;

/// Reads all tensors of files as f32.
fn read(paths: &[PathBuf]) -> Tensors {
    let mut tensors = Tensors::new();
    for container in paths.iter().map(|path| Container::open_path(path).unwrap()) {
        for (name, info) in &container.tensors {
            let values = container.shard.read(name, info, 0, info.shape.iter().product()).unwrap();
            tensors.insert(name.clone(), Entry::f32(&info.shape, &values.into_f32()));
        }
    }
    tensors
}

/// Reads the tensors of a part of the bundle, with their names in the file of that part alone.
fn read_part(prefix: &str) -> Tensors {
    let tensors = read(&[layout("bundle.safetensors")]).into_iter();
    tensors.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor))).collect()
}

fn read_t5() -> Tensors {
    let file = |index| golden(&format!("model/text_encoder_3/model-0000{index}-of-00002.safetensors"));
    read(&[file(1), file(2)])
}

fn safetensors_file(tensors: &Tensors, metadata: &[(&str, &str)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    if !metadata.is_empty() {
        let metadata: BTreeMap<_, _> = metadata.iter().copied().collect();
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    for (name, Entry { dtype, shape, bytes }) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        data.extend(bytes);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Returns a GGUF file. It describes its architecture only if that is known.
fn gguf_file(architecture: Option<&str>, tensors: &Tensors) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes()].concat();
    file.extend(u64::from(architecture.is_some()).to_le_bytes());
    if let Some(architecture) = architecture {
        file.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text(architecture)].concat());
    }
    let mut data = Vec::new();
    for (name, Entry { dtype, shape, bytes }) in tensors {
        file.extend(text(name));
        file.extend((shape.len() as u32).to_le_bytes());
        file.extend(shape.iter().rev().flat_map(|dimension| (*dimension as u64).to_le_bytes()));
        let type_number: u32 = match *dtype {
            "F32" => 0,
            "F16" => 1,
            "Q8_0" => 8,
            "BF16" => 30,
            other => panic!("{other}"),
        };
        file.extend(type_number.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// Returns the tensors of the only part in a file.
fn weights(file: &[u8]) -> Result<Weights> {
    let container = Container::in_memory(file)?;
    layout::weights(&container, &layout::find_parts(&container)[0])
}

/// Writes files of parts, and returns them with the other parts of the golden model.
fn with_files(folder: &Path, files: &[(PartKind, Vec<u8>)]) -> PartFiles {
    let mut parts = parts("bundle.safetensors", "t5xxl.gguf");
    for (kind, content) in files {
        let path = folder.join(kind.name());
        std::fs::write(&path, content).unwrap();
        parts.set(*kind, path);
    }
    parts
}

/// Returns the error of a file of a part.
#[track_caller]
fn refused(kind: PartKind, tensors: &Tensors) -> String {
    let folder = tempfile::tempdir().unwrap();
    let files = with_files(folder.path(), &[(kind, safetensors_file(tensors, &[]))]);
    let opened = Checkpoint::from_parts(&files, &GOLDEN);
    let error = opened.and_then(|checkpoint| Pipeline::new(checkpoint, &LoadOptions::default())).unwrap_err();
    let error = error.to_string();
    assert!(error.contains(&format!("{}: ", kind.name())), "the file is not named: {error}");
    error
}

/// Files of the program gguf-node have the architecture `pig`. They keep the order of diffusers, also in the modulation.
#[test]
fn a_gguf_denoiser_with_the_names_of_diffusers_generates_the_same_image() {
    let mut tensors = read(&[golden("model/transformer/diffusion_pytorch_model.safetensors")]);
    let positions = tensors.get_mut("pos_embed.pos_embed").unwrap();
    positions.shape.remove(0);
    let folder = tempfile::tempdir().unwrap();
    for architecture in [Some("pig"), None] {
        let files = with_files(folder.path(), &[(PartKind::Denoiser, gguf_file(architecture, &tensors))]);
        let checkpoint = Checkpoint::from_parts(&files, &GOLDEN).unwrap();
        assert!(architecture.is_none() || generate(checkpoint) == generate(self::folder()), "the images differ");
    }
}

/// stable-diffusion.cpp converts a complete model to one GGUF file with the names of the original.
#[test]
fn a_gguf_file_with_all_parts_generates_the_same_image() {
    let mut tensors = read(&[layout("bundle.safetensors")]);
    // GGUF has no tensors without dimensions.
    tensors.retain(|_, tensor| !tensor.shape.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sd3.5.gguf");
    std::fs::write(&path, gguf_file(None, &tensors)).unwrap();
    let ModelFiles::Parts(mut files) = ModelFiles::find(&path).unwrap() else { panic!("not parts") };
    assert!(files.iter().count() == 4 && files.iter().all(|(_, found)| found == path));
    files.set(PartKind::T5, layout("t5xxl.gguf"));
    assert!(
        generate(Checkpoint::from_parts(&files, &GOLDEN).unwrap()) == generate(self::folder()),
        "the images differ"
    );
}

#[test]
fn positions_and_biases_of_a_gguf_file_have_any_shape_and_format() {
    let original = read_part("model.diffusion_model.");
    let table = original["pos_embed"].clone();
    let bias = original["x_embedder.proj.bias"].clone();
    for shape in [vec![144, 32], vec![1, 144, 32]] {
        for dtype in ["F32", "F16", "BF16"] {
            let convert = |tensor: &Entry, shape: &[usize]| {
                let values = tensor.values();
                let bytes = match dtype {
                    "F16" => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
                    "BF16" => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
                    _ => tensor.bytes.clone(),
                };
                Entry { dtype, shape: shape.into(), bytes }
            };
            let mut tensors = original.clone();
            tensors.insert("pos_embed".into(), convert(&table, &shape));
            tensors.insert("x_embedder.proj.bias".into(), convert(&bias, &bias.shape));
            let weights = weights(&gguf_file(None, &tensors)).unwrap();
            let config = shapes::denoiser(&weights, &GOLDEN).unwrap();
            assert_eq!(config.pos_embed_max_size, 12);
            for (name, expected) in [("pos_embed.pos_embed", &table), ("pos_embed.proj.bias", &bias)] {
                let read = weights.root().tensor(name, &expected.shape).unwrap();
                let differs = |(a, b): (&f32, f32)| (a - b).abs() > 0.004 * b.abs() + 1e-6;
                assert!(!read.values().iter().zip(expected.values()).any(differs), "{name}, {shape:?}, {dtype}");
            }
            Mmdit::open(Part { weights, config }).unwrap();
        }
    }
}

#[test]
fn scales_of_every_name_and_shape_are_applied() {
    let codes: Vec<u8> = (0..48 * 32).map(|index| (index * 7 % 120) as u8).collect();
    let factors: Vec<f32> = (1..=48).map(|row| row as f32 / 16.0).collect();
    for (dtype, format) in [("F8_E4M3", Format::F8E4m3), ("F8_E5M2", Format::F8E5m2)] {
        let mut plain = vec![0.0; codes.len()];
        format.widen(&codes, &mut plain);
        for suffix in ["scale_weight", "weight_scale"] {
            for shape in [&[][..], &[1], &[48], &[48, 1]] {
                let factors = &factors[..shape.iter().product()];
                // The queries, keys and values of an image of 16 channels, which diffusers stores apart.
                let layer = "joint_blocks.0.x_block.attn.qkv";
                let tensors = Tensors::from([
                    ("scaled_fp8".into(), Entry { dtype, shape: vec![0], bytes: Vec::new() }),
                    (format!("{layer}.weight"), Entry { dtype, shape: vec![48, 32], bytes: codes.clone() }),
                    (format!("{layer}.{suffix}"), Entry::f32(shape, factors)),
                    (format!("{layer}.scale_input"), Entry::f32(&[], &[9.0])),
                    (format!("{layer}.input_scale"), Entry::f32(&[1], &[9.0])),
                ]);
                let weights = weights(&safetensors_file(&tensors, &[])).unwrap();
                let expected = plain.iter().enumerate().map(|(at, value)| value * factors[at / 32 % factors.len()]);
                let expected: Vec<f32> = expected.collect();
                for (name, rows) in [("to_q", 0..16), ("to_k", 16..32), ("to_v", 32..48)] {
                    let name = format!("transformer_blocks.0.attn.{name}.weight");
                    let read = weights.root().tensor(&name, &[16, 32]).unwrap();
                    assert_eq!(
                        read.values(),
                        &expected[rows.start * 32..rows.end * 32],
                        "{dtype}, {suffix}, {shape:?}"
                    );
                }
                assert_eq!(weights.unused(), [""; 0]);
            }
        }
    }
}

#[test]
fn scales_that_do_not_fit_are_refused_when_a_file_is_opened() {
    let t5 = read_t5();
    let layer = "encoder.block.1.layer.0.SelfAttention.q";
    let with = |name: String, tensor: Entry| {
        let mut tensors = t5.clone();
        tensors.insert(name, tensor);
        refused(PartKind::T5, &tensors)
    };
    // One scale for each block of 32x32 weights.
    let error = with(format!("{layer}.weight_scale"), Entry::f32(&[2, 2], &[1.0; 4]));
    assert!(error.contains(layer) && error.contains("has 4 scales for 64 rows"), "{error}");
    let error = with("encoder.block.7.weight_scale".into(), Entry::f32(&[1], &[1.0]));
    assert!(error.contains("`encoder.block.7.weight_scale`") && error.contains("not in the same file"), "{error}");
}

#[test]
fn kinds_of_quantisation_in_the_header_are_applied_or_refused_by_name() {
    let tensors = read_part("model.diffusion_model.");
    let open = |format: &str| {
        let kinds =
            format!(r#"{{"format_version": "1.0", "layers": {{"joint_blocks.0.a": {{"format": "{format}"}}}}}}"#);
        weights(&safetensors_file(&tensors, &[("_quantization_metadata", &kinds)]))
    };
    open("float8_e4m3fn").unwrap();
    let error = open("nvfp4").unwrap_err().to_string();
    assert!(error.contains("`joint_blocks.0.a` in `nvfp4`") && error.contains("GGUF"), "{error}");
}

#[test]
fn other_versions_of_a_part_are_refused_by_name() {
    let denoiser = read_part("model.diffusion_model.");
    let mut medium = denoiser.clone();
    medium.retain(|name, _| !name.contains("ln_q") && !name.contains("ln_k"));
    let error = refused(PartKind::Denoiser, &medium);
    assert!(error.contains("is Stable Diffusion 3 Medium"), "{error}");

    let mut large = denoiser.clone();
    let layer = |index| format!("joint_blocks.{index}.x_block.attn.qkv.weight");
    (3..38).for_each(|index| drop(large.insert(layer(index), denoiser[&layer(0)].clone())));
    let error = refused(PartKind::Denoiser, &large);
    assert!(error.contains("is Stable Diffusion 3.5 Large"), "{error}");

    let mut long_clip = read_part("text_encoders.clip_l.transformer.");
    let positions = long_clip.get_mut("text_model.embeddings.position_embedding.weight").unwrap();
    *positions = Entry::f32(&[248, 16], &[0.0; 248 * 16]);
    let error = refused(PartKind::ClipL, &long_clip);
    assert!(error.contains("is 248") && error.contains("have 77"), "{error}");

    let mut umt5 = read_t5();
    umt5.insert(
        "shared.weight".into(),
        Entry { dtype: "F8_E4M3", shape: vec![256_384, 64], bytes: vec![0; 256_384 * 64] },
    );
    let error = refused(PartKind::T5, &umt5);
    assert!(error.contains("has 256384 rows") && error.contains("UMT5"), "{error}");

    let mut vae = read_part("first_stage_model.");
    vae.insert("post_quant_conv.weight".into(), Entry::f32(&[16, 16, 1, 1], &[0.0; 256]));
    let error = refused(PartKind::Vae, &vae);
    assert!(error.contains("post_quant_conv"), "{error}");
}

#[test]
fn text_encoders_with_other_tensors_generate_the_same_image() {
    let clip = read_part("text_encoders.clip_l.transformer.");
    let identity: Vec<f32> = (0..256).map(|at| if at % 17 == 0 { 1.0 } else { 0.0 }).collect();
    let mut expected = clip.clone();
    expected.insert("text_projection.weight".into(), Entry::f32(&[16, 16], &identity));
    let folder = tempfile::tempdir().unwrap();
    let image = |clip: &Tensors, t5: &Tensors| {
        let files = [(PartKind::ClipL, clip), (PartKind::T5, t5)];
        let files = files.map(|(kind, tensors)| (kind, safetensors_file(tensors, &[])));
        generate(Checkpoint::from_parts(&with_files(folder.path(), &files), &GOLDEN).unwrap())
    };
    let mut t5 = read_t5();
    let expected = image(&expected, &t5);

    // The public `clip_l.safetensors` has no projection, and tensors that no encoder needs.
    let mut clip = clip;
    clip.remove("text_projection.weight").unwrap();
    clip.insert("logit_scale".into(), Entry::f32(&[], &[4.6]));
    let ids = Entry { dtype: "I64", shape: vec![1, 77], bytes: vec![0; 8 * 77] };
    clip.insert("text_model.embeddings.position_ids".into(), ids);
    // A complete T5 has its embeddings under this name, a decoder and a head.
    let table = t5.remove("shared.weight").unwrap();
    t5.remove("encoder.embed_tokens.weight");
    t5.insert("lm_head.weight".into(), Entry::f32(&table.shape, &vec![9.0; table.values().len()]));
    t5.insert("encoder.embed_tokens.weight".into(), table);
    let query = t5["encoder.block.0.layer.0.SelfAttention.q.weight"].clone();
    t5.insert("decoder.block.0.layer.0.SelfAttention.q.weight".into(), query);
    assert!(image(&clip, &t5) == expected, "the images differ");
}

#[test]
fn single_rows_of_quantised_embeddings_are_read() {
    let t5 = read_t5();
    let table = &t5["shared.weight"];
    let quantised = Entry { dtype: "Q8_0", shape: table.shape.clone(), bytes: q8_0(&table.values()) };
    let query = t5["encoder.block.0.layer.0.SelfAttention.q.weight"].clone();
    let tensors = Tensors::from([("token_embd.weight".into(), quantised), ("enc.blk.0.attn_q.weight".into(), query)]);
    let weights = weights(&gguf_file(Some("t5encoder"), &tensors)).unwrap();
    let all = weights.root().tensor("shared.weight", &table.shape).unwrap();
    for row in [0, 1, 243] {
        let read = weights.root().rows("shared.weight", 64, row, 1).unwrap();
        assert_eq!(read, all.values()[row * 64..][..64]);
        let close = read.iter().zip(&table.values()[row * 64..]).all(|(a, b)| (a - b).abs() < 0.05 * (b.abs() + 1.0));
        assert!(close, "row {row}");
    }
}

#[test]
fn unused_tensors_are_reported_in_every_layout() {
    let mut tensors = read(&[layout("bundle.safetensors")]);
    let unused = [
        "model.diffusion_model.joint_blocks.0.x_block.attn3.proj.weight",
        "first_stage_model.loss.weight",
        "text_encoders.clip_g.transformer.other.weight",
        "model_ema.decay",
    ];
    unused.iter().for_each(|name| drop(tensors.insert((*name).into(), Entry::f32(&[1], &[0.0]))));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, safetensors_file(&tensors, &[])).unwrap();
    let mut files = parts("bundle.safetensors", "t5xxl.gguf");
    for kind in [PartKind::Denoiser, PartKind::Vae, PartKind::ClipL, PartKind::ClipG] {
        files.set(kind, &path);
    }
    let pipeline = Pipeline::new(Checkpoint::from_parts(&files, &GOLDEN).unwrap(), &LoadOptions::default()).unwrap();
    let parts = pipeline.summary(64, 64).unwrap().parts;
    let reported: Vec<&str> = parts.iter().flat_map(|part| &part.unused).map(String::as_str).collect();
    for name in unused.into_iter().chain(["text_encoders.clip_l.logit_scale"]) {
        assert_eq!(reported.iter().filter(|reported| **reported == name).count(), 1, "{name} in {reported:?}");
    }
    assert_eq!(reported.len(), 5, "{reported:?}");
}

#[test]
fn the_folder_of_another_pipeline_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (class, expected) in [
        ("StableDiffusionXLPipeline", Some("is the model of a StableDiffusionXLPipeline")),
        ("FluxPipeline", Some("is the model of a FluxPipeline")),
        ("StableDiffusion3Img2ImgPipeline", None),
    ] {
        let index = serde_json::json!({ "_class_name": class });
        std::fs::write(folder.path().join("model_index.json"), index.to_string()).unwrap();
        let error = ModelFiles::find(folder.path()).err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{class}");
        assert!(error.is_none_or(|error| error.contains(expected.unwrap()) && error.contains("model_index.json")));
    }
}

#[test]
fn weights_of_16_bit_variants_have_other_names() {
    for variant in ["fp16", "bf16"] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&golden("model"), copy.path());
        let rename = |from: &str, to: &str| std::fs::rename(copy.path().join(from), copy.path().join(to)).unwrap();
        for part in ["transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
            rename(&format!("{part}.safetensors"), &format!("{part}.{variant}.safetensors"));
        }
        let t5 = |name: &str| format!("text_encoder_3/{name}");
        for index in 1..=2 {
            let number = format!("{index:05}-of-00002.safetensors");
            rename(&t5(&format!("model-{number}")), &t5(&format!("model.{variant}-{number}")));
        }
        let path = copy.path().join(t5("model.safetensors.index.json"));
        let index = std::fs::read_to_string(&path).unwrap().replace("model-", &format!("model.{variant}-"));
        std::fs::remove_file(path).unwrap();
        std::fs::write(copy.path().join(t5(&format!("model.safetensors.index.{variant}.json"))), index).unwrap();
        let files = ModelFiles::find(copy.path()).unwrap();
        Pipeline::open(&files, &LoadOptions::default()).unwrap();
    }
}

#[test]
fn parts_in_different_folders_are_named_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let denoiser = folder.path().join("denoiser.gguf");
    std::fs::copy(layout("denoiser-Q8_0.gguf"), &denoiser).unwrap();
    let mut named = PartFiles::default();
    for kind in [PartKind::Vae, PartKind::ClipL, PartKind::ClipG] {
        let error = ModelFiles::find_with(&denoiser, named.clone()).unwrap_err().to_string();
        assert!(error.contains(kind.name()), "{error}");
        named.set(kind, layout("bundle.safetensors"));
    }
    named.set(PartKind::T5, layout("t5xxl.gguf"));
    let ModelFiles::Parts(found) = ModelFiles::find_with(&denoiser, named.clone()).unwrap() else { panic!("a folder") };
    named.set(PartKind::Denoiser, &denoiser);
    assert_eq!(found, named);
    Checkpoint::from_parts(&found, &GOLDEN).unwrap();
    let error = ModelFiles::find_with(&golden("model"), named).unwrap_err().to_string();
    assert!(error.contains("is a complete model") && error.contains("denoiser"), "{error}");
}
