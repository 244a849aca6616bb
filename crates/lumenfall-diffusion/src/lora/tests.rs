//! Compares images with LoRAs with those of `tools/lora_golden.py`, and checks what happens with other files.

mod fixed;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::LoraFile;
use crate::error::Result;
use crate::parameters::{Callbacks, LoadOptions, Parameters};
use crate::pipeline::Pipeline;
use crate::sampling::Guidance;
use crate::weights::ModelFiles;

const TOLERANCE: f32 = 1e-3;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str) -> PathBuf {
    folder().join("lora").join(name).with_extension("safetensors")
}

fn open(loras: Vec<LoraFile>) -> Result<Pipeline> {
    let options = LoadOptions { loras, ..LoadOptions::default() };
    Pipeline::open(&ModelFiles::Folder(folder().join("model")), &options)
}

/// Opens the golden model with LoRAs, whose strength is 0 unless a request sets it.
fn pipeline(names: &[&str]) -> Pipeline {
    open(names.iter().map(|name| LoraFile::new(*name, golden(name)).strength(0.0)).collect()).unwrap()
}

/// Returns the latents of the golden request with strengths.
fn latents(pipeline: &Pipeline, strengths: &[(&str, f32)]) -> Vec<f32> {
    let parameters = Parameters {
        negative_prompt: Some("blue square".into()),
        width: Some(96),
        height: Some(96),
        steps: Some(4),
        seed: 1,
        t5_tokens: Some(32),
        loras: strengths.iter().map(|(name, strength)| ((*name).to_owned(), *strength)).collect(),
        ..Parameters::new("a red circle on a white background")
    };
    let last = Mutex::new(Vec::new());
    let keep = |latent: &[f32]| *last.lock().unwrap() = latent.to_vec();
    pipeline.generate(&parameters, Callbacks::none().with_latents(&keep)).unwrap();
    last.into_inner().unwrap()
}

fn expected(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(golden("latents")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[track_caller]
fn assert_same(actual: &[f32], name: &str) {
    assert_within(TOLERANCE, actual, name);
}

#[track_caller]
fn assert_within(tolerance: f32, actual: &[f32], name: &str) {
    let difference = difference(actual, &expected(name));
    assert!(difference <= tolerance, "{name} differs by {difference}");
}

#[test]
fn images_with_peft_loras_equal_those_of_diffusers() {
    let pipeline = pipeline(&["peft", "rslora"]);
    assert_same(&latents(&pipeline, &[("peft", 1.0)]), "peft");
    assert_same(&latents(&pipeline, &[("peft", -0.5)]), "negative");
    assert_same(&latents(&pipeline, &[("rslora", -0.6), ("peft", 0.8)]), "both");
}

#[test]
fn a_lora_in_the_names_of_kohya_and_of_fused_layers_results_in_the_same_image() {
    let pipeline = pipeline(&["kohya", "t5"]);
    assert_same(&latents(&pipeline, &[("kohya", 1.0)]), "peft");
    assert_same(&latents(&pipeline, &[("t5", 1.0)]), "t5");
}

#[test]
fn images_with_dora_and_lokr_equal_those_of_peft_and_lycoris() {
    let names = ["dora", "lokr", "lokr_rows", "lokr_columns"];
    let pipeline = pipeline(&names);
    for name in names {
        assert_same(&latents(&pipeline, &[(name, 1.0)]), name);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn images_with_loras_on_a_gpu_equal_those_of_peft_and_lycoris() {
    use crate::device::{Device, GpuChoice};

    let names = ["dora", "lokr_rows"];
    let loras = names.iter().map(|name| LoraFile::new(*name, golden(name)).strength(0.0)).collect();
    let options = LoadOptions { loras, device: Device::Gpu(GpuChoice::Index(0)), ..LoadOptions::default() };
    let pipeline = Pipeline::open(&ModelFiles::Folder(folder().join("model")), &options).unwrap();
    let tolerance = TOLERANCE * crate::golden::leniency(&crate::gpu::tests::placement());
    for name in names {
        assert_within(tolerance, &latents(&pipeline, &[(name, 1.0)]), name);
    }
}

#[test]
fn a_change_of_the_strength_leaves_no_residue() {
    let files = ModelFiles::Folder(folder().join("model"));
    let plain = latents(&Pipeline::open(&files, &LoadOptions::default()).unwrap(), &[]);
    let pipeline = pipeline(&["peft", "lokr_rows", "lokr_columns"]);
    assert_eq!(latents(&pipeline, &[]), plain);
    let first = latents(&pipeline, &[("peft", 1.0), ("lokr_rows", 1.0), ("lokr_columns", 0.5)]);
    let half = latents(&pipeline, &[("peft", 0.5), ("lokr_rows", 0.5), ("lokr_columns", 0.25)]);
    assert!(difference(&first, &half) > 0.1);
    assert_eq!(latents(&pipeline, &[("peft", 1.0), ("lokr_rows", 1.0), ("lokr_columns", 0.5)]), first);
    assert_eq!(latents(&pipeline, &[("peft", 0.0)]), plain);
}

#[test]
fn a_request_without_strengths_has_the_default_ones_and_reports_them() {
    let pipeline = open(vec![LoraFile::new("ink", golden("rslora")).strength(0.5)]).unwrap();
    let parameters = Parameters { steps: Some(1), guidance: Guidance::new(1.0), ..Parameters::new("a star") };
    let run = |loras: &[(&str, f32)]| {
        let loras = loras.iter().map(|(name, strength)| ((*name).to_owned(), *strength)).collect();
        pipeline.generate(&Parameters { loras, ..parameters.clone() }, Callbacks::none())
    };
    let output = run(&[]).unwrap();
    assert_eq!(output.parameters.loras, BTreeMap::from([("ink".to_owned(), 0.5)]));
    assert_eq!(output.images, run(&[("ink", 0.5)]).unwrap().images);
    let error = run(&[("oil", 1.0)]).unwrap_err().to_string();
    assert_eq!(error, "`loras` has no LoRA `oil`; the model has `ink`");
    let error = run(&[("ink", f32::NAN)]).unwrap_err().to_string();
    assert!(error.contains("has the strength NaN for `ink`"), "{error}");
}

/// The tensors and metadata of a file.
struct File {
    tensors: BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>,
    metadata: Option<HashMap<String, String>>,
}

impl File {
    fn new() -> Self {
        Self { tensors: BTreeMap::new(), metadata: None }
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let owned = |view: &TensorView<'_>| (view.shape().to_vec(), view.dtype(), view.data().to_vec());
        let tensors = tensors.iter().map(|(name, view)| (name.to_owned(), owned(&view))).collect();
        Self { tensors, metadata: header.metadata().clone() }
    }

    fn with(mut self, name: &str, shape: &[usize], value: f32) -> Self {
        let bytes = value.to_le_bytes().repeat(shape.iter().product());
        self.tensors.insert(name.to_owned(), (shape.to_vec(), Dtype::F32, bytes));
        self
    }

    fn renamed(mut self, name: impl Fn(&str) -> String) -> Self {
        self.tensors = self.tensors.into_iter().map(|(key, tensor)| (name(&key), tensor)).collect();
        self
    }

    fn write(&self, path: &Path) {
        let views = self
            .tensors
            .iter()
            .map(|(name, (shape, dtype, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, self.metadata.clone()).unwrap()).unwrap();
    }

    /// Opens the golden model with the file as a LoRA.
    fn open(&self) -> (tempfile::TempDir, Result<Pipeline>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lora.safetensors");
        self.write(&path);
        (folder, open(vec![LoraFile::new("lora", path)]))
    }

    #[track_caller]
    fn assert_refused(&self, part: &str) {
        let error = self.open().1.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("lora.safetensors: ") && error.contains(part), "{error:?} does not contain {part:?}");
    }

    fn latents(&self, strength: f32) -> Vec<f32> {
        let (_folder, pipeline) = self.open();
        latents(&pipeline.unwrap(), &[("lora", strength)])
    }
}

/// Replaces the dots of the denoiser's layers, but not those before `lora_A` and `lora_B`.
fn flat(key: &str, prefix: &str) -> String {
    let (module, end) = key.strip_prefix("transformer.").unwrap().split_once(".lora_").unwrap();
    let end = end.replace("A.", "down.").replace("B.", "up.");
    format!("{prefix}{}.lora_{end}", module.replace('.', "_"))
}

/// Returns a copy of the golden model with a change of one weight file.
fn changed_model(name: &str, change: impl FnOnce(&mut File)) -> (tempfile::TempDir, ModelFiles) {
    let copy = tempfile::tempdir().unwrap();
    for part in std::fs::read_dir(folder().join("model")).unwrap().map(|part| part.unwrap().path()) {
        let Ok(files) = std::fs::read_dir(&part) else { continue };
        let target = copy.path().join(part.file_name().unwrap());
        std::fs::create_dir(&target).unwrap();
        for file in files.map(|file| file.unwrap().path()) {
            std::fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
        }
    }
    let mut file = File::read(&copy.path().join(name));
    change(&mut file);
    file.write(&copy.path().join(name));
    let files = ModelFiles::Folder(copy.path().into());
    (copy, files)
}

#[test]
fn all_forms_of_keys_result_in_the_same_image() {
    let expected = latents(&pipeline(&["rslora"]), &[("rslora", 1.0)]);
    type Rename = fn(&str) -> String;
    let renames: [Rename; 6] = [
        |key| flat(key, "lora_transformer_"),
        |key| flat(key, "lycoris_"),
        |key| flat(key, "lora_unet_"),
        |key| key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"),
        |key| key.replace(".weight", ".default.weight"),
        |key| key.replace("transformer.transformer", "base_model.model.transformer"),
    ];
    for rename in renames {
        let file = File::read(&golden("rslora")).renamed(rename);
        assert_eq!(file.latents(1.0), expected, "{:?}", file.tensors.keys().next());
    }
    // The original names, with dots.
    let dotted = |key: &str| {
        let (module, end) = key.rsplit_once(if key.ends_with("alpha") { "." } else { ".lora_" }).unwrap();
        let module = module.replace("lora_unet_joint_blocks_", "diffusion_model.joint_blocks.");
        let module = module.replace("lora_unet_", "diffusion_model.").replace("embedder_mlp_", "embedder.mlp.");
        let module = module.replace("_x_block_", ".x_block.").replace("_context_block_", ".context_block.");
        let module = module
            .replace("attn_", "attn.")
            .replace("attn2_", "attn2.")
            .replace("mlp_fc", "mlp.fc")
            .replace("adaLN_modulation_1", "adaLN_modulation.1");
        let module = module.replace("x_embedder_proj", "x_embedder.proj").replace("final_layer_", "final_layer.");
        format!("{module}.{}{end}", if end == "alpha" { "" } else { "lora_" })
    };
    let mut kohya = File::read(&golden("kohya"));
    kohya.tensors.retain(|key, _| key.starts_with("lora_unet_"));
    assert_eq!(kohya.latents(1.0), kohya.renamed(dotted).latents(1.0));
}

#[test]
fn biases_are_added_to_those_of_the_model() {
    let mut shape = Vec::new();
    let (_folder, changed) = changed_model("transformer/diffusion_pytorch_model.safetensors", |file| {
        let (bias_shape, _, bias) = file.tensors.get_mut("proj_out.bias").unwrap();
        for bytes in bias.as_chunks_mut().0 {
            *bytes = (f32::from_le_bytes(*bytes) + 0.25).to_le_bytes();
        }
        shape.clone_from(bias_shape);
    });
    let expected = latents(&Pipeline::open(&changed, &LoadOptions::default()).unwrap(), &[]);
    let by_difference = File::new().with("transformer.proj_out.diff_b", &shape, 0.5).latents(0.5);
    assert!(difference(&by_difference, &expected) < 1e-4);
    let by_matrix = File::new()
        .with("transformer.proj_out.lora_A.weight", &[2, 32], 0.0)
        .with("transformer.proj_out.lora_B.weight", &[shape[0], 2], 0.0)
        .with("transformer.proj_out.lora_B.bias", &shape, 0.125)
        .with("transformer.proj_out.alpha", &[1], 4.0);
    assert!(difference(&by_matrix.latents(1.0), &expected) < 1e-4);
}

#[test]
fn a_missing_projection_of_clip_is_the_identity() {
    let encoder = "text_encoder/model.safetensors";
    let (_folder, without) = changed_model(encoder, |file| drop(file.tensors.remove("text_projection.weight")));
    let (_folder, with) = changed_model(encoder, |file| {
        let (_, _, bytes) = file.tensors.get_mut("text_projection.weight").unwrap();
        for (index, bytes) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = (0.05 + if index / 16 == index % 16 { 1.0f32 } else { 0.0 }).to_le_bytes();
        }
    });
    let lora = tempfile::tempdir().unwrap();
    let path = lora.path().join("lora.safetensors");
    File::new()
        .with("lora_te1_text_projection.lora_down.weight", &[1, 16], 0.5)
        .with("lora_te1_text_projection.lora_up.weight", &[16, 1], 0.1)
        .write(&path);
    let options = LoadOptions { loras: vec![LoraFile::new("lora", path)], ..LoadOptions::default() };
    let actual = latents(&Pipeline::open(&without, &options).unwrap(), &[]);
    let expected = latents(&Pipeline::open(&with, &LoadOptions::default()).unwrap(), &[]);
    assert!(difference(&actual, &expected) < 1e-4);
    let without_lora = latents(&Pipeline::open(&without, &LoadOptions::default()).unwrap(), &[]);
    assert!(difference(&without_lora, &expected) > 1e-2);
}

#[test]
fn files_that_do_not_fit_are_refused_with_names_and_counts() {
    let layer = |name: &str, outputs: usize, inputs: usize| {
        let prefix = format!("transformer.{name}");
        File::new().with(&format!("{prefix}.lora_A.weight"), &[2, inputs], 0.1).with(
            &format!("{prefix}.lora_B.weight"),
            &[outputs, 2],
            0.1,
        )
    };
    assert!(layer("proj_out", 64, 32).open().1.is_ok());
    layer("proj_out", 64, 48)
        .assert_refused("`transformer.proj_out` changes a weight of the shape [64, 48], but the model's is [64, 32]");
    let mut other = File::new();
    for index in 0..5 {
        other = other.with(
            &format!("transformer.single_transformer_blocks.{index}.attn.to_q.lora_A.weight"),
            &[1, 32],
            0.0,
        );
    }
    other.assert_refused(
        "5 of its 5 layers are not in this one: `transformer.single_transformer_blocks.0.attn.to_q`, \
         `transformer.single_transformer_blocks.1.attn.to_q`, `transformer.single_transformer_blocks.2.attn.to_q` and 2 more",
    );
    // The embeddings of tokens are no linear layer.
    File::new()
        .with("text_encoder.text_model.embeddings.token_embedding.lora_A.weight", &[1, 16], 0.0)
        .with("text_encoder.text_model.embeddings.token_embedding.lora_B.weight", &[752, 1], 0.0)
        .assert_refused("embeddings.token_embedding");
    File::new()
        .with("lora_unet_proj_out.hada_w1_a", &[1], 0.0)
        .assert_refused("contains LoHa, which is not supported, in 1 tensors: `lora_unet_proj_out.hada_w1_a`");
    File::new().with("proj_out.diff", &[1], 0.0).assert_refused("a full difference of weights");
    File::new()
        .with("proj_out.weight", &[1], 0.0)
        .assert_refused("1 tensors that do not belong to a LoRA: `proj_out.weight`");
    File::new().assert_refused("no tensors");
    File::new().with("proj_out.lora_A.weight", &[1, 32], 0.0).assert_refused("`proj_out` has only one of two matrices");
    layer("proj_out", 64, 32)
        .with("transformer.proj_out.lora_B.weight", &[64, 3], 0.0)
        .assert_refused("[2, 32] and [64, 3], whose ranks differ");
    layer("proj_out", 64, 32).with("transformer.proj_out.alpha", &[2], 0.0).assert_refused("an alpha of the shape [2]");
    layer("proj_out", 64, 32)
        .with("transformer.proj_out.lora_B.bias", &[32], 0.0)
        .assert_refused("a bias of the shape [32]");
    layer("proj_out", 64, 32)
        .with("transformer.proj_out.dora_scale", &[1, 64], 0.0)
        .assert_refused("a DoRA magnitude of the shape [1, 64]");
    layer("proj_out", 64, 32)
        .with("transformer.proj_out.lora_down.weight", &[2, 32], 0.0)
        .assert_refused("has two tensors of the same kind");
    File::new().with("proj_out.lokr_w1", &[2, 2], 0.0).assert_refused("an incomplete Kronecker product");
    let huge = [1 << 40, 0];
    let huge = File::new().with("proj_out.lokr_w1", &huge, 0.0).with("proj_out.lokr_w2", &huge, 0.0);
    huge.assert_refused("a Kronecker product that is too large");
    layer("joint_blocks.0.x_block.attn.qkv", 96, 32)
        .with("transformer.joint_blocks.0.x_block.attn.qkv.dora_scale", &[1, 32], 0.0)
        .assert_refused("one norm of queries, keys and values");
    let (_folder, pipeline) = layer("proj_out", 64, 32).with("transformer.proj_out.alpha", &[], f32::NAN).open();
    let error = pipeline.unwrap().generate(&Parameters::new("a star"), Callbacks::none()).unwrap_err().to_string();
    assert!(error.contains("tensor `transformer.proj_out.alpha` contains a value that is not finite"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lora.safetensors");
    let bytes = std::fs::read(golden("rslora")).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = open(vec![LoraFile::new("a", &path)]).unwrap_err().to_string();
    assert!(error.contains("so it is truncated"), "{error}");
    let twice = vec![LoraFile::new("a", golden("rslora")), LoraFile::new("a", golden("peft"))];
    assert!(open(twice).unwrap_err().to_string().contains("has two LoRAs with the name `a`"));
}
