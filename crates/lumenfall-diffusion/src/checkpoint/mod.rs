//! Finds the parts of a model in its files.

pub(crate) mod config;
mod counts;
mod find;
pub(crate) mod scheduler;
mod shapes;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod tiny_decoder;

use crate::error::{Error, Result};
use crate::placement::{Lazy, Placement};
use crate::text::Tokenizer;
use crate::weights::layout::{self, PartKind};
use crate::weights::{Container, ModelFiles, PartFiles, Weights, file_names};
use config::{ClipConfig, DenoiserConfig, T5Config, VaeConfig};
use scheduler::SchedulerConfig;
pub(crate) use shapes::Conventions;

/// The weights of one part and its dimensions. The weights have not been read.
#[derive(Debug)]
pub(crate) struct Part<C> {
    pub(crate) weights: Weights,
    pub(crate) config: C,
}

/// A text encoder with its tokenizer, which is read by the first request.
pub(crate) type Encoder<C> = (Lazy<Tokenizer>, Part<C>);

/// All parts of a model.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) denoiser: Part<DenoiserConfig>,
    pub(crate) vae: Part<VaeConfig>,
    pub(crate) clip_l: Encoder<ClipConfig>,
    pub(crate) clip_g: Encoder<ClipConfig>,
    pub(crate) t5: Option<Encoder<T5Config>>,
    pub(crate) scheduler: SchedulerConfig,
}

impl Checkpoint {
    /// Reads the headers and configurations of a model's files.
    pub(crate) fn open(files: &ModelFiles) -> Result<Self> {
        let checkpoint = match files {
            ModelFiles::Folder(_) | ModelFiles::Embedded(_) => Self::from_folder(files)?,
            ModelFiles::Parts(parts) => Self::from_parts(parts, &Conventions::STABLE_DIFFUSION_3)?,
        };
        checkpoint.check_widths()?;
        Ok(checkpoint)
    }

    /// Sets where T5 and the other parts compute.
    pub(crate) fn on(self, placement: &Placement, t5_placement: &Placement) -> Self {
        fn part<C>(Part { weights, config }: Part<C>, placement: &Placement) -> Part<C> {
            Part { weights: weights.on(placement), config }
        }
        let clip = |(tokenizer, clip)| (tokenizer, part(clip, placement));
        Self {
            denoiser: part(self.denoiser, placement),
            vae: part(self.vae, placement),
            clip_l: clip(self.clip_l),
            clip_g: clip(self.clip_g),
            t5: self.t5.map(|(tokenizer, t5)| (tokenizer, part(t5, t5_placement))),
            scheduler: self.scheduler,
        }
    }

    /// Opens the parts of a folder in the layout of the diffusers library.
    fn from_folder(files: &ModelFiles) -> Result<Self> {
        files.check_exist(&folder_files(files)?)?;
        let clip = |encoder: &str, tokenizer: &str| -> Result<Encoder<ClipConfig>> {
            let config = config::clip(files, encoder)?;
            let tokenizer = clip_tokenizer(files, tokenizer, config.max_position_embeddings)?;
            let part = Part { weights: Weights::open(files, encoder, "model")?, config };
            counts::clip(&part, &files.path(&format!("{encoder}/config.json")))?;
            Ok((tokenizer, part))
        };
        let scheduler = scheduler::read(files)?;
        let denoiser = config::denoiser(files)?;
        let vae = config::vae(files)?;
        let weights = |folder| Weights::open(files, folder, "diffusion_pytorch_model");
        let denoiser = Part { weights: weights("transformer")?, config: denoiser };
        counts::denoiser(&denoiser, &files.path("transformer/config.json"))?;
        let vae = Part { weights: weights("vae")?, config: vae };
        counts::vae(&vae, &files.path("vae/config.json"))?;
        Ok(Self {
            scheduler,
            denoiser,
            vae,
            clip_l: clip("text_encoder", "tokenizer")?,
            clip_g: clip("text_encoder_2", "tokenizer_2")?,
            t5: match files.has_folder("text_encoder_3") {
                true => {
                    let config = config::t5(files)?;
                    let part = Part { weights: Weights::open(files, "text_encoder_3", "model")?, config };
                    counts::t5(&part, &files.path("text_encoder_3/config.json"))?;
                    Some((t5_tokenizer(files, "tokenizer_3")?, part))
                }
                false => None,
            },
        })
    }

    /// Opens parts in files of their own, or in one file, whatever the names of their tensors.
    pub(crate) fn from_parts(files: &PartFiles, conventions: &Conventions) -> Result<Self> {
        let tokenizers = ModelFiles::Embedded(lumenfall_tokenizers::FILES);
        let open = |kind: PartKind| -> Result<Weights> {
            let path = files.path(kind).ok_or_else(|| missing_part(kind))?;
            let container = Container::open_path(path)?;
            let location = layout::find_parts(&container).into_iter().find(|location| location.kind == kind);
            let location = location.ok_or_else(|| {
                let reason = match layout::find_parts(&container).first() {
                    Some(other) => format!("contains no {}, but a {}", kind.name(), other.kind.name()),
                    None => layout::describe_other_model(&container).to_owned(),
                };
                Error::malformed(path, reason)
            })?;
            layout::weights(&container, &location)
        };
        let clip = |kind: PartKind, tokenizer: &str| -> Result<Encoder<ClipConfig>> {
            let weights = open(kind)?;
            let config = shapes::clip(&weights, kind, conventions)?;
            let tokenizer = clip_tokenizer(&tokenizers, tokenizer, config.max_position_embeddings)?;
            Ok((tokenizer, Part { weights, config }))
        };
        let (denoiser, vae) = (open(PartKind::Denoiser)?, open(PartKind::Vae)?);
        Ok(Self {
            scheduler: SchedulerConfig::default(),
            denoiser: Part { config: shapes::denoiser(&denoiser, conventions)?, weights: denoiser },
            vae: Part { config: shapes::vae(&vae, conventions)?, weights: vae },
            clip_l: clip(PartKind::ClipL, "tokenizer")?,
            clip_g: clip(PartKind::ClipG, "tokenizer_2")?,
            t5: match files.path(PartKind::T5) {
                Some(_) => {
                    let weights = open(PartKind::T5)?;
                    let config = shapes::t5(&weights)?;
                    Some((t5_tokenizer(&tokenizers, "tokenizer_3")?, Part { weights, config }))
                }
                None => None,
            },
        })
    }

    /// Returns the weights of a part.
    pub(crate) fn weights(&mut self, part: PartKind) -> Option<&mut Weights> {
        match part {
            PartKind::Denoiser => Some(&mut self.denoiser.weights),
            PartKind::Vae => Some(&mut self.vae.weights),
            PartKind::ClipL => Some(&mut self.clip_l.1.weights),
            PartKind::ClipG => Some(&mut self.clip_g.1.weights),
            PartKind::T5 => self.t5.as_mut().map(|(_, t5)| &mut t5.weights),
        }
    }

    /// Checks that the widths of the parts fit to each other.
    fn check_widths(&self) -> Result<()> {
        let Self { denoiser, vae, clip_l, clip_g, t5, .. } = self;
        let [(_, l), (_, g)] = [clip_l, clip_g];
        let mismatch = |path: &std::path::Path, problem: String| {
            let reason = format!("{problem}; the files belong to different models: download them from one source");
            Err(Error::malformed(path, reason))
        };
        let latent = vae.config.latent_channels;
        if latent != denoiser.config.in_channels {
            let problem =
                format!("`latent_channels` is {latent}, but the denoiser expects {}", denoiser.config.in_channels);
            return mismatch(vae.weights.path(), problem);
        }
        let (pooled, pooled_l, pooled_g) =
            (denoiser.config.pooled_projection_dim, l.config.projection_dim, g.config.projection_dim);
        if pooled_l.checked_add(pooled_g) != Some(pooled) {
            let problem =
                format!("`pooled_projection_dim` is {pooled}, but the text encoders output {pooled_l} + {pooled_g}");
            return mismatch(denoiser.weights.path(), problem);
        }
        let (joint, clip) =
            (denoiser.config.joint_attention_dim, l.config.hidden_size.saturating_add(g.config.hidden_size));
        if joint < clip {
            let problem = format!("`joint_attention_dim` is {joint}, but the CLIP encoders output {clip}");
            return mismatch(denoiser.weights.path(), problem);
        }
        match t5 {
            Some((_, t5)) if t5.config.d_model != joint => {
                let problem =
                    format!("`joint_attention_dim` is {joint}, but the T5 encoder outputs {}", t5.config.d_model);
                mismatch(denoiser.weights.path(), problem)
            }
            _ => Ok(()),
        }
    }
}

/// Returns the names of the files that a folder in the layout of the diffusers library needs.
fn folder_files(files: &ModelFiles) -> Result<Vec<String>> {
    let mut names = vec!["scheduler/scheduler_config.json".to_owned()];
    let mut parts = vec![
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
    ];
    names.extend(["tokenizer", "tokenizer_2"].map(|folder| clip_tokenizer_file(files, folder)));
    if files.has_folder("text_encoder_3") {
        parts.push(("text_encoder_3", "model"));
        names.push("tokenizer_3/tokenizer.json".into());
    }
    for (folder, stem) in parts {
        names.push(format!("{folder}/config.json"));
        names.extend(file_names(files, folder, stem)?);
    }
    Ok(names)
}

/// Returns the name of the file with the vocabulary of a CLIP tokenizer.
fn clip_tokenizer_file(files: &ModelFiles, folder: &str) -> String {
    let merges = files.exists(&format!("{folder}/merges.txt"));
    let name = match (merges, files) {
        (true, ModelFiles::Embedded(_)) => "merges.txt",
        (true, _) => "vocab.json",
        (false, _) => "tokenizer.json",
    };
    format!("{folder}/{name}")
}

/// Checks that the files of a CLIP tokenizer exist.
fn clip_tokenizer(files: &ModelFiles, folder: &str, max_positions: usize) -> Result<Lazy<Tokenizer>> {
    files.open(&clip_tokenizer_file(files, folder))?;
    let (files, folder) = (files.clone(), folder.to_owned());
    Ok(Lazy::kept(move || Tokenizer::clip(&files, &folder, max_positions)))
}

/// Checks that the file of a T5 tokenizer exists.
fn t5_tokenizer(files: &ModelFiles, folder: &str) -> Result<Lazy<Tokenizer>> {
    files.open(&format!("{folder}/tokenizer.json"))?;
    let (files, folder) = (files.clone(), folder.to_owned());
    Ok(Lazy::kept(move || Tokenizer::t5(&files, &folder)))
}

fn missing_part(kind: PartKind) -> Error {
    Error::MissingFile {
        path: format!("file with the {}", kind.name()).into(),
        remedy: "put it beside the other files, or name its file".into(),
    }
}
