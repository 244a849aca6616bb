//! Writes the files of a model with random weights.

use std::fs;
use std::path::Path;

use lumenfall_kernels::Format;
use serde_json::{Value, json};

use super::configurations::Configurations;
use crate::checkpoint::Part;
use crate::error::{Error, Result};
use crate::models::{Clip, Mmdit, T5, Vae};
use crate::text::{CLIP_SPECIALS, clip_vocabulary};
use crate::weights::layout::{Naming, PartKind, name_in_file};
use crate::weights::{NewTensor, Requests, Weights, write_gguf, write_safetensors};

/// The format of a model with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFormat {
    /// A folder in the layout of diffusers with f32 weights.
    F32,
    /// The same with f16 weights.
    F16,
    /// The same with bf16 weights.
    Bf16,
    /// The same with weights in 8-bit floating point (E4M3).
    Fp8,
    /// Denoiser and T5 in GGUF files in f16, and the other parts in safetensors files in f16.
    F16Gguf,
    /// Denoiser and T5 in GGUF files in Q8_0, and the other parts in safetensors files in f16.
    Q8_0,
    /// Denoiser and T5 in GGUF files in Q4_K, and the other parts in safetensors files in f16.
    Q4K,
}

impl ModelFormat {
    /// Returns the format of most matrices of the denoiser.
    pub(crate) fn of_matrices(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 | Self::F16Gguf => Format::F16,
            Self::Bf16 => Format::Bf16,
            Self::Fp8 => Format::F8E4m3,
            Self::Q8_0 => Format::Q8_0,
            Self::Q4K => Format::Q4K,
        }
    }
}

impl std::str::FromStr for ModelFormat {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "fp8" => Ok(Self::Fp8),
            "f16-gguf" => Ok(Self::F16Gguf),
            "q8_0" => Ok(Self::Q8_0),
            "q4_k" => Ok(Self::Q4K),
            _ => Err(format!("unknown format {name:?}; use f32, f16, bf16, fp8, f16-gguf, q8_0 or q4_k")),
        }
    }
}

/// Writes a Stable Diffusion 3.5 Medium with random weights to a folder.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn make_weights(format: ModelFormat, folder: &Path, with_t5: bool) -> Result<()> {
    make(&Configurations::full(), format, folder, with_t5)
}

fn make(configurations: &Configurations, format: ModelFormat, folder: &Path, with_t5: bool) -> Result<()> {
    let of_matrices = format.of_matrices();
    if !matches!(format, ModelFormat::F16Gguf | ModelFormat::Q8_0 | ModelFormat::Q4K) {
        return make_folder(configurations, of_matrices, folder, with_t5);
    }
    create(folder)?;
    for (kind, name) in [(PartKind::ClipL, "clip_l"), (PartKind::ClipG, "clip_g"), (PartKind::Vae, "vae")] {
        let tensors = tensors(configurations, kind, Naming::Diffusers, |_| Format::F16)?;
        write_safetensors(&folder.join(name).with_extension("safetensors"), &tensors)?;
    }
    // As in published files: vectors are in f32, and only the matrices of the blocks and T5's embeddings are quantised.
    let choose = |tensor: &NewTensor| {
        let whole_blocks = tensor.shape.last().is_some_and(|row| of_matrices.bytes_of(*row).is_some());
        let in_block = ["joint_blocks.", "enc.blk.", "token_embd."].iter().any(|part| tensor.name.starts_with(part));
        match tensor.shape.len() {
            0 | 1 => Format::F32,
            2 if whole_blocks && in_block && !tensor.name.contains("attn_rel_b") => of_matrices,
            _ => Format::F16,
        }
    };
    let denoiser = tensors(configurations, PartKind::Denoiser, Naming::Original, choose)?;
    write_gguf(&folder.join("sd3.5_medium.gguf"), "sd3", &denoiser)?;
    if with_t5 {
        let t5 = tensors(configurations, PartKind::T5, Naming::LlamaCpp, choose)?;
        write_gguf(&folder.join("t5xxl.gguf"), "t5encoder", &t5)?;
    }
    Ok(())
}

/// Writes a folder in the layout of diffusers.
fn make_folder(configurations: &Configurations, format: Format, folder: &Path, with_t5: bool) -> Result<()> {
    let parts = [
        (PartKind::Denoiser, "transformer", "diffusion_pytorch_model", &configurations.transformer),
        (PartKind::Vae, "vae", "diffusion_pytorch_model", &configurations.vae),
        (PartKind::ClipL, "text_encoder", "model", &configurations.text_encoder),
        (PartKind::ClipG, "text_encoder_2", "model", &configurations.text_encoder_2),
        (PartKind::T5, "text_encoder_3", "model", &configurations.text_encoder_3),
    ];
    for (kind, name, stem, configuration) in parts {
        if kind != PartKind::T5 || with_t5 {
            let part = folder.join(name);
            create(&part)?;
            write_json(&part.join("config.json"), configuration)?;
            let tensors = tensors(configurations, kind, Naming::Diffusers, |_| format)?;
            write_safetensors(&part.join(stem).with_extension("safetensors"), &tensors)?;
        }
    }
    for (name, content) in lumenfall_tokenizers::FILES {
        let path = folder.join(name);
        if let Some(tokenizer) = path.parent()
            && (with_t5 || !tokenizer.ends_with("tokenizer_3"))
        {
            create(tokenizer)?;
            fs::write(&path, content).map_err(|source| Error::File { action: "write", path: path.clone(), source })?;
            if path.ends_with("merges.txt") {
                let vocabulary = clip_vocabulary(&String::from_utf8_lossy(content), CLIP_SPECIALS);
                write_json(&tokenizer.join("vocab.json"), &vocabulary.into())?;
            }
        }
    }
    create(&folder.join("scheduler"))?;
    let scheduler =
        json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0 });
    write_json(&folder.join("scheduler/scheduler_config.json"), &scheduler)?;
    let third = |library: &str, class: &str| if with_t5 { json!([library, class]) } else { json!([null, null]) };
    let index = json!({
        "_class_name": "StableDiffusion3Pipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": third("transformers", "T5EncoderModel"),
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "tokenizer_3": third("transformers", "T5TokenizerFast"),
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    write_json(&folder.join("model_index.json"), &index)
}

/// Returns the tensors of a part. `format` chooses the format of each.
fn tensors(
    configurations: &Configurations,
    kind: PartKind,
    naming: Naming,
    format: impl Fn(&NewTensor) -> Format,
) -> Result<Vec<NewTensor>> {
    let requests = Requests::default();
    let weights = Weights::recorded(&requests);
    let configuration = match kind {
        PartKind::Denoiser => {
            Mmdit::open(Part { weights, config: configurations.denoiser()? })?;
            &configurations.transformer
        }
        PartKind::Vae => {
            Vae::open(Part { weights, config: configurations.vae()? })?;
            &configurations.vae
        }
        PartKind::ClipL => {
            Clip::open(Part { weights, config: configurations.clip_l()? })?;
            &configurations.text_encoder
        }
        PartKind::ClipG => {
            Clip::open(Part { weights, config: configurations.clip_g()? })?;
            &configurations.text_encoder_2
        }
        PartKind::T5 => {
            T5::open(Part { weights, config: configurations.t5()? })?;
            &configurations.text_encoder_3
        }
    };
    let tensors = requests.shapes().into_iter().filter_map(|(name, mut shape)| {
        match (name.as_str(), configuration.get("vocab_size").and_then(Value::as_u64)) {
            // diffusers stores the positions with a batch dimension.
            ("pos_embed.pos_embed", _) => shape.insert(0, 1),
            // Models request only one row of their embeddings.
            ("shared.weight" | "text_model.embeddings.token_embedding.weight", Some(vocabulary)) => {
                shape.iter_mut().take(1).for_each(|rows| *rows = vocabulary as usize);
            }
            _ => {}
        }
        let ones = shape.len() == 1 && name.contains("norm") && name.ends_with("weight");
        let (name, shape) = name_in_file(kind, naming, &name, &shape)?;
        let tensor = NewTensor { name, shape, format: Format::F32, ones };
        Some(NewTensor { format: format(&tensor), ..tensor })
    });
    Ok(tensors.collect())
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::File { action: "create", path: folder.into(), source })
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    fs::write(path, format!("{value:#}\n")).map_err(|source| Error::File { action: "write", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::{Checkpoint, Conventions};
    use crate::parameters::LoadOptions;
    use crate::pipeline::Pipeline;
    use crate::weights::ModelFiles;

    /// Returns the configurations of the golden model.
    fn tiny() -> Configurations {
        let read = |folder: &str| -> Value {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model").join(folder).join("config.json");
            serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
        };
        Configurations {
            transformer: read("transformer"),
            vae: read("vae"),
            text_encoder: read("text_encoder"),
            text_encoder_2: read("text_encoder_2"),
            text_encoder_3: read("text_encoder_3"),
        }
    }

    /// Returns the formats of each part. All tensors must be used.
    fn formats(pipeline: &Pipeline) -> Vec<BTreeMap<String, usize>> {
        let parts = pipeline.summary(64, 64).unwrap().parts;
        assert!(parts.iter().all(|part| part.unused.is_empty()), "{parts:?}");
        parts.into_iter().map(|part| part.formats).collect()
    }

    #[test]
    fn a_folder_with_16_bit_weights_opens() {
        let folder = tempfile::tempdir().unwrap();
        make(&tiny(), ModelFormat::F16, folder.path(), true).unwrap();
        let files = ModelFiles::find(folder.path()).unwrap();
        let pipeline = Pipeline::open(&files, &LoadOptions::default()).unwrap();
        assert!(formats(&pipeline).iter().all(|formats| formats.keys().eq(["F16"])));
    }

    #[test]
    fn quantised_files_open() {
        let folder = tempfile::tempdir().unwrap();
        make(&tiny(), ModelFormat::Q8_0, folder.path(), true).unwrap();
        let ModelFiles::Parts(parts) = ModelFiles::find(folder.path()).unwrap() else { panic!("not separate parts") };
        // The golden model has dimensions that no tensor's shape shows.
        let conventions = Conventions { clip_heads: |_| 2, vae_groups: 4, sample_size: 12, position_side: 12 };
        let checkpoint = Checkpoint::from_parts(&parts, &conventions).unwrap();
        let pipeline = Pipeline::new(checkpoint, &LoadOptions::default()).unwrap();
        let [denoiser, vae, _, _, t5] = formats(&pipeline).try_into().unwrap();
        assert!(vae.keys().eq(["F16"]), "{vae:?}");
        for quantised in [denoiser, t5] {
            assert!(quantised.keys().eq(["F16", "F32", "Q8_0"]), "{quantised:?}");
        }
    }

    #[test]
    fn the_full_model_has_the_tensors_of_the_published_one() {
        let tensors = |kind, naming| tensors(&Configurations::full(), kind, naming, |_| Format::F16).unwrap();
        let weights = |tensors: &[NewTensor]| -> usize {
            tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
        };
        let original = tensors(PartKind::Denoiser, Naming::Original);
        assert_eq!((original.len(), weights(&original)), (665, 2_243_171_520 + 226_492_416));
        let t5 = tensors(PartKind::T5, Naming::LlamaCpp);
        assert_eq!((t5.len(), weights(&t5)), (219, 4_762_310_656));
    }
}
