//! The builder of the local backend.

use std::path::{Path, PathBuf};

use lumenfall_diffusion::{
    Device, LoadOptions, LoraFile, MemoryBudget, ModelFiles, PartFiles, PartKind, PromptCache, WithoutT5, demo_files,
};

use super::{Local, LocalOptions};
use crate::error::{Error, ErrorKind};
use crate::values::expand_home;

/// Builds a [`Local`] backend from files that lie apart, or with options.
///
/// ```no_run
/// use lumenfall::local::{Local, PartKind};
///
/// # fn example() -> Result<(), lumenfall::Error> {
/// let local = Local::builder("~/models/sd3.5_medium-Q8_0.gguf")
///     .part(PartKind::Vae, "~/models/vae/sd3.5_vae.safetensors")
///     .part(PartKind::T5, "~/models/clip/t5xxl_fp8_e4m3fn.safetensors")
///     .threads(4)
///     .open()?;
/// let client = lumenfall::Client::new(local);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct LocalBuilder {
    /// `None` is the demonstration model.
    path: Option<PathBuf>,
    parts: PartFiles,
    options: LoadOptions,
    defaults: LocalOptions,
}

impl LocalBuilder {
    pub(super) fn new(path: Option<&Path>) -> Self {
        let path = path.map(|path| expand_home(path).into_owned());
        Self { path, parts: PartFiles::default(), options: LoadOptions::default(), defaults: LocalOptions::default() }
    }

    /// Sets the file of one part. The others are found as by [`Local::open`].
    pub fn part(mut self, part: PartKind, path: impl AsRef<Path>) -> Self {
        self.parts.set(part, expand_home(path.as_ref()).into_owned());
        self
    }

    /// Sets the number of threads to compute with. Default: one per CPU. The images do not depend on it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.options.threads = Some(threads);
        self
    }

    /// Sets the device to compute on. Default: [`Device::Auto`].
    pub fn device(mut self, device: Device) -> Self {
        self.options.device = device;
        self
    }

    /// Sets the replacement for T5's output if the model has no T5 encoder.
    pub fn without_t5(mut self, replacement: WithoutT5) -> Self {
        self.options.without_t5 = replacement;
        self
    }

    /// Sets the memory that weights and intermediate values may take. The images do not depend on it. A request that does not
    /// fit is refused with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) before any weight is read.
    pub fn memory(mut self, budget: MemoryBudget) -> Self {
        self.options.memory = budget;
        self
    }

    /// Sets the memory of the GPU that weights and intermediate values may take. Default: 90 % of what the driver reports as usable
    /// for this program. The images do not depend on it.
    ///
    /// Blocks of the denoiser that do not fit are copied to the GPU for each step. They come from the computer's memory as far as the
    /// operating system keeps their file there, and otherwise from the file. Metal and DX12 do not report the memory. The default is
    /// then 90 % of 4 GiB, or of the computer's free memory if the GPU shares it.
    #[cfg(feature = "gpu")]
    #[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
    pub fn gpu_memory(mut self, budget: MemoryBudget) -> Self {
        self.options.gpu_memory = budget;
        self
    }

    /// Sets whether T5 computes on the CPU, also if the other parts compute on a GPU. Default: false.
    ///
    /// T5 is the largest part, and copying it to a GPU for each new prompt may take longer than computing on the CPU.
    #[cfg(feature = "gpu")]
    #[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
    pub fn t5_on_cpu(mut self, on_cpu: bool) -> Self {
        self.options.t5_on_cpu = on_cpu;
        self
    }

    /// Sets the options of requests that do not set them, and replaces those that were set before.
    pub fn defaults(mut self, defaults: LocalOptions) -> Self {
        self.defaults = defaults;
        self
    }

    /// Adds a LoRA, DoRA or LoKr in a safetensors file, with a strength of 1. Several can be added.
    ///
    /// The file may change the denoiser and the text encoders. Its names may be those of diffusers, peft, kohya's scripts,
    /// OneTrainer, LyCORIS or Stability AI. The weights of the model may have any format.
    pub fn lora(self, name: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.lora_with_strength(name, path, 1.0)
    }

    /// Adds a LoRA as [`lora`](Self::lora) does, with another strength: 0 has no effect, and negative values reverse the effect.
    pub fn lora_with_strength(mut self, name: impl Into<String>, path: impl AsRef<Path>, strength: f32) -> Self {
        self.options.loras.push(LoraFile::new(name, expand_home(path.as_ref())).strength(strength));
        self
    }

    /// Adds a LoRA as [`lora`](Self::lora) does, with the same strength in all requests. A request with another one is an error.
    ///
    /// It costs no time in a request if the weights of the layers that it changes are f32: the changes are then added to them when
    /// they are read. Layers with weights of another format are changed in each request.
    pub fn fixed_lora(mut self, name: impl Into<String>, path: impl AsRef<Path>, strength: f32) -> Self {
        self.options.loras.push(LoraFile::new(name, expand_home(path.as_ref())).strength(strength).fixed());
        self
    }

    /// Stores encoded prompts in a folder, so that the text encoders are not read for prompts that it contains, also not by another
    /// process. The images do not depend on it. Default: the last prompts in memory, and the empty prompt of a model whose T5 is larger
    /// than 1 GiB in the user's cache folder, which the environment variable `LUMENFALL_CACHE` sets (empty: nothing is stored).
    ///
    /// The folder contains up to 1 GiB, about 180 prompts of Stable Diffusion 3.5. [`PromptCache`] describes it.
    pub fn prompt_cache(self, folder: impl AsRef<Path>) -> Self {
        self.prompt_cache_with(PromptCache::new(folder.as_ref()))
    }

    /// Stores encoded prompts as [`prompt_cache`](Self::prompt_cache) does, with a folder of another size.
    pub fn prompt_cache_with(mut self, mut cache: PromptCache) -> Self {
        cache.folder = expand_home(&cache.folder).into_owned();
        self.options.prompt_cache = Some(cache);
        self
    }

    /// Sets a safetensors file with the decoder of TAESD3, a tiny autoencoder. It draws previews at full resolution, and images with
    /// [`Decoder::Tiny`](super::Decoder::Tiny).
    ///
    /// The file is that of diffusers (`diffusion_pytorch_model.safetensors` of `madebyollin/taesd3`), or that of the author and of
    /// ComfyUI (`taesd3_decoder.safetensors`). TAEF1, the tiny autoencoder of FLUX, has the same shapes, so it is not recognised; its
    /// images are wrong. The file is a part of the model's [fingerprint](Local::fingerprint).
    pub fn tiny_decoder(mut self, path: impl AsRef<Path>) -> Self {
        self.options.tiny_decoder = Some(expand_home(path.as_ref()).into_owned());
        self
    }

    /// Opens the model.
    ///
    /// # Errors
    /// The same as [`Client::local`](crate::Client::local); [`ErrorKind::Io`] if a LoRA or the tiny decoder cannot be read, and
    /// [`ErrorKind::InvalidRequest`] if a setting is invalid, such as two LoRAs of one name or more than 1024 threads.
    pub fn open(self) -> Result<Local, Error> {
        let Some(path) = self.path else {
            if let Some((part, path)) = self.parts.iter().next() {
                let (part, path) = (part.name(), path.display());
                let message = format!("the demonstration model has its own {part} and cannot use {path}; leave it out");
                return Err(Error::new(ErrorKind::Model, message));
            }
            return Local::new("demo".into(), demo_files(), self.options, self.defaults);
        };
        let name = if path.is_file() { path.file_stem() } else { path.file_name() };
        let name = name.map_or("local".into(), |name| name.to_string_lossy().into_owned());
        let files = ModelFiles::find_with(&path, self.parts)?;
        Local::new(name, files, self.options, self.defaults)
    }
}
