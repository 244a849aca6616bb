//! The programs that are measured with the files of a model, by `tools/bench_peers.py`.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use lumenfall_diffusion::{LoadOptions, ModelFiles, PartKind, Pipeline};

/// A program that is measured with the same files.
pub(crate) struct ModelPeer {
    pub(crate) name: &'static str,
    /// What is compared, the name of its value, and the largest ratio.
    pub(crate) limits: &'static [(&'static str, &'static str, f64)],
    arguments: Vec<String>,
}

impl ModelPeer {
    /// Returns the command that measures the peer.
    pub(crate) fn command(&self, size: &str) -> Result<Command, Box<dyn Error>> {
        let python = std::env::var("LUMENFALL_BENCH_PYTHON").unwrap_or("python3".into());
        let threads = std::thread::available_parallelism()?.to_string();
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bench_peers.py"));
        command.args(&self.arguments).args(["--size", size, "--threads", &threads]);
        Ok(command)
    }

    /// Returns the peers that can read the model: diffusers reads folders in its layout, stable-diffusion.cpp reads GGUF files.
    pub(crate) fn of(path: &str) -> Result<Vec<Self>, Box<dyn Error>> {
        let has_python = std::env::var_os("LUMENFALL_BENCH_PYTHON").is_some();
        if has_python && Path::new(path).join("model_index.json").exists() {
            let arguments = |name: &str| [name, "--model", path].map(str::to_owned).to_vec();
            return Ok(vec![
                Self {
                    name: "diffusers bf16",
                    limits: &[
                        ("start to first denoiser step", "before_steps", 0.3),
                        ("image of 28 steps", "image", 0.9),
                        ("", "peak", 0.6),
                    ],
                    arguments: arguments("diffusers"),
                },
                Self {
                    name: "transformers f32, T5 alone",
                    limits: &[("text encoders", "text", 0.6)],
                    arguments: arguments("transformers"),
                },
            ]);
        }
        let Ok(program) = std::env::var("LUMENFALL_BENCH_SD_CLI") else { return Ok(Vec::new()) };
        let mut arguments = vec!["sd_cpp".to_owned(), "--program".into(), program];
        let summary = Pipeline::open(&ModelFiles::find(path)?, &LoadOptions::default())?.summary(512, 512)?;
        for part in &summary.parts {
            let option = match part.part {
                PartKind::Denoiser => "--diffusion-model",
                PartKind::ClipL => "--clip_l",
                PartKind::ClipG => "--clip_g",
                PartKind::T5 => "--t5xxl",
                PartKind::Vae => "--vae",
                _ => continue,
            };
            arguments.extend([option.to_owned(), part.path.to_string_lossy().into_owned()]);
        }
        let limits = &[
            ("start to first denoiser step", "before_steps", 0.3),
            ("denoiser step", "step", 0.45),
            ("image of 28 steps", "image", 0.45),
            ("", "peak", 0.6),
        ];
        Ok(vec![Self { name: "stable-diffusion.cpp", limits, arguments }])
    }
}
