//! Compares the models with the golden values that `tools/golden.py` computed with diffusers for two tiny random models.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use safetensors::{Dtype, SafeTensors};

use crate::checkpoint::{Checkpoint, Part};
use crate::device::Device;
use crate::image::RgbImage;
use crate::models::{Conditioning, Mmdit, Omitted, Vae};
use crate::parameters::{Callbacks, LoadOptions, Parameters};
use crate::pipeline::Pipeline;
use crate::placement::{Placement, Target};
use crate::sampling::{Generator, Guidance, Sampler};
use crate::tensor::Tensor;
use crate::text::{Reading, TextEncoders, Texts, WithoutT5};
use crate::weights::{ModelFiles, Weights};

mod components;
mod first_block_cache;
mod formats;
mod images;
#[cfg(feature = "gpu")]
mod on_a_gpu;
mod photographs;
mod prompts;
mod tiny_decoder;

const COMPONENT_TOLERANCE: f32 = 1e-4;
const LATENT_TOLERANCE: f32 = 1e-3;
/// How much larger the tolerances are where matrix products have factors in f16.
#[cfg(feature = "gpu")]
const LENIENCY_OF_F16: f32 = 100.0;
const T5_TOKENS: usize = 32;

/// A model with golden values. Both have different dimensions everywhere.
#[derive(Clone, Copy, Debug)]
enum Model {
    First,
    /// Its weights are f16.
    Second,
}

impl Model {
    const ALL: [Self; 2] = [Self::First, Self::Second];

    /// Returns the folder of its golden values.
    fn folder(self) -> PathBuf {
        match self {
            Self::First => folder(),
            Self::Second => folder().join("second"),
        }
    }

    fn files(self) -> ModelFiles {
        ModelFiles::Folder(self.folder().join("model"))
    }

    fn golden(self, name: &str) -> Golden {
        Golden::read(&self.folder().join(format!("{name}.safetensors")))
    }

    /// Returns the prompts and parameters of its golden values.
    fn parameters(self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.folder().join("golden.json")).unwrap()).unwrap()
    }

    /// Returns a copy without the T5 encoder.
    fn files_without_t5(self) -> (tempfile::TempDir, ModelFiles) {
        let copy = tempfile::tempdir().unwrap();
        for part in ["transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"] {
            std::fs::create_dir(copy.path().join(part)).unwrap();
            for file in std::fs::read_dir(self.folder().join("model").join(part)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(part).join(file.file_name())).unwrap();
            }
        }
        let files = ModelFiles::Folder(copy.path().to_path_buf());
        (copy, files)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files() -> ModelFiles {
    Model::First.files()
}

struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open(name: &str) -> Self {
        Model::First.golden(name)
    }

    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        Self(tensors.iter().map(|(name, view)| (name.to_owned(), to_f32(&view))).collect())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}")).clone()
    }

    /// Returns one entry of the batch dimension.
    fn entry(&self, name: &str, index: usize) -> Tensor {
        let all = self.get(name);
        all.rows(index..index + 1).unwrap().reshape(&all.shape()[1..]).unwrap()
    }

    fn first(&self, name: &str) -> Tensor {
        self.entry(name, 0)
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.first(name).values().iter().map(|id| *id as u32).collect()
    }
}

fn to_f32(view: &safetensors::tensor::TensorView<'_>) -> Tensor {
    let bytes = view.data();
    let values = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        Dtype::I32 => bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        Dtype::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        other => panic!("golden values have the type {other:?}"),
    };
    Tensor::new(values, view.shape()).unwrap()
}

#[track_caller]
fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.shape(), expected.shape());
    let actual = actual.on_cpu().unwrap();
    let pairs = actual.values().iter().zip(expected.values());
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference <= tolerance, "differs by {difference}, more than {tolerance}");
}

/// Returns the factor of the tolerances on a device.
pub(crate) fn leniency(placement: &Placement) -> f32 {
    match placement.target() {
        Target::Cpu => 1.0,
        #[cfg(feature = "gpu")]
        Target::Gpu(gpu) => gpu.matrices().map_or(1.0, |_| LENIENCY_OF_F16),
    }
}

fn never_cancelled() -> crate::error::Result<()> {
    Ok(())
}

/// Converts `[channels, height, width]` to `[height, width, channels]`.
fn channels_last(image: &Tensor) -> Tensor {
    image.permute([1, 2, 0]).unwrap()
}

fn row(vector: &Tensor) -> Tensor {
    vector.reshape(&[1, vector.len()]).unwrap()
}

fn text_encoders(files: &ModelFiles, placement: &Placement) -> TextEncoders {
    open_text_encoders(files, WithoutT5::Zeros, placement)
}

/// Encodes prompts without options.
fn encode(
    encoders: &TextEncoders,
    prompts: &[&str],
    t5_tokens: usize,
    check_cancelled: &dyn Fn() -> crate::error::Result<()>,
) -> crate::error::Result<Vec<Conditioning>> {
    let prompts: Vec<_> = prompts.iter().map(|prompt| Texts::all(prompt)).collect();
    let reading = Reading { t5_tokens: Some(t5_tokens), ..Reading::default() };
    encoders.encode(&prompts, &reading, &mut Vec::new(), check_cancelled)
}

fn open_text_encoders(files: &ModelFiles, without_t5: WithoutT5, placement: &Placement) -> TextEncoders {
    let Checkpoint { denoiser, clip_l, clip_g, t5, .. } = Checkpoint::open(files).unwrap().on(placement, placement);
    TextEncoders::open(clip_l, clip_g, t5, denoiser.config.joint_attention_dim, without_t5).unwrap()
}

fn bytes(image: &Tensor) -> Vec<u8> {
    image.values().iter().map(|value| *value as u8).collect()
}

fn pipeline(files: &ModelFiles) -> Pipeline {
    Pipeline::open(files, &LoadOptions { device: Device::Cpu, ..LoadOptions::default() }).unwrap()
}
