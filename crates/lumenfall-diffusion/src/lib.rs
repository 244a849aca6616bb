//! Stable Diffusion 3.5 Medium in Rust: tokenizers, text encoders, MMDiT-X, image autoencoder and sampler.
//!
//! This is the engine under the `local` feature of the `lumenfall` crate, which most programs want instead: it has the
//! same call for this machine and for a remote service. Here is no HTTP and no async runtime.
//!
//! A model is a folder in the layout of the diffusers library, with weights in safetensors files of f32, f16 or bf16. The
//! `config.json` files decide every dimension. diffusers is the reference: the same seed makes the same picture.
//!
//! ```no_run
//! use lumenfall_diffusion::{Control, FileFormat, LoadOptions, ModelFiles, Parameters, Pipeline};
//!
//! let files = ModelFiles::Folder("models/stable-diffusion-3.5-medium".into());
//! let pipeline = Pipeline::load(&files, &LoadOptions::default())?;
//! let control = Control { stop: &|| false, progress: &|stage| println!("{stage:?}") };
//! let result = pipeline.generate(&Parameters::new("a lighthouse at dusk"), control)?;
//! let file = result.pictures[0].encode(FileFormat::Png)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[doc(hidden)]
pub mod bench;
mod config;
mod demo;
mod error;
#[cfg(test)]
mod golden;
mod mmdit;
mod noise;
mod ops;
mod picture;
mod pipeline;
mod schedule;
mod text;
mod vae;
mod weights;

pub use demo::demo_files;
pub use error::{Error, Result};
pub use ops::Ops;
pub use picture::{FileFormat, Picture};
pub use pipeline::{
    Control, DEFAULT_GUIDANCE, DEFAULT_STEPS, DEFAULT_STRENGTH, LoadOptions, Parameters, Pictures, Pipeline, Stage,
};
pub use text::WithoutT5;
pub use weights::{EmbeddedFile, ModelFiles};
