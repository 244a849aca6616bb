//! Stable Diffusion 3.5 Medium in Rust: tokenizers, text encoders, the MMDiT-X denoiser, the image autoencoder and the
//! scheduler.
//!
//! This crate is synchronous and contains no HTTP code. Most programs should use it through the `local` feature of the
//! `lumenfall` crate, whose async client has the same methods for a local model and for a remote service.
//!
//! A model is a folder in the layout of the diffusers library, a single safetensors or GGUF file, or a folder with ComfyUI's files, with
//! weights from f32 to Q2_K. Its `config.json` files, or the shapes of its tensors, determine every dimension. The same seed generates the same image as in diffusers, up to rounding.
//!
//! ```no_run
//! use lumenfall_diffusion::{Callbacks, FileFormat, LoadOptions, ModelFiles, Parameters, Pipeline};
//!
//! let files = ModelFiles::Folder("models/stable-diffusion-3.5-medium".into());
//! let pipeline = Pipeline::open(&files, &LoadOptions::default())?;
//! let callbacks = Callbacks::new(&|| false, &|progress| println!("{progress:?}"));
//! let output = pipeline.generate(&Parameters::new("a lighthouse at dusk"), callbacks)?;
//! let file = output.images[0].encode(FileFormat::Png)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("lumenfall-diffusion needs a 64-bit target, because weight files may be larger than 4 GiB");

#[doc(hidden)]
pub mod bench;
mod checkpoint;
#[cfg(test)]
mod combinations;
mod demo;
mod device;
mod error;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(feature = "gpu")]
mod gpu;
mod image;

mod layers;
mod lora;
mod models;
mod parameters;
mod pipeline;
mod placement;
mod sampling;
#[cfg(test)]
mod speed;
mod tensor;
mod text;
mod user_cache;
mod weights;

pub use demo::demo_files;
pub use device::{Device, GpuChoice};
pub use error::{Error, Result};
#[cfg(feature = "gpu")]
#[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
pub use gpu::{GpuInfo, GpuKind, devices};
pub use image::{FileFormat, FileMetadata, RgbImage, read_metadata};
pub use lora::LoraFile;

pub use parameters::{
    Callbacks, DEFAULT_GUIDANCE, DEFAULT_STEPS, DEFAULT_STRENGTH, Decoder, LoadOptions, Parameters, PipelineOutput,
    Preview, Progress,
};
pub use pipeline::{Mask, ModelSummary, Pipeline, Sizes};
pub use placement::MemoryBudget;
pub use sampling::{
    CudaCard, DynamicShift, Guidance, GuidanceMethod, Noise, Sampler, Schedule, ScheduleOptions, Shift, SkipLayers,
    SkipWindow, TimeShift,
};
pub use text::{LongPrompts, PromptCache, PromptWeights, TextOptions, WithoutT5};
pub use weights::layout::PartKind;
pub use weights::{EmbeddedFile, ModelFiles, PartFiles, PartSummary};
