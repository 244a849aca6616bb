//! The memory of requests on a GPU: that of the GPU, and that of the computer.

use super::Pipeline;
use super::memory::exceeded;
use super::prompts::reading;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::models::TinyDecoder;
use crate::parameters::{Decoder, Parameters};
use crate::placement::{Phase, Plan, Target};

/// The number of blocks that are in the computer's memory while they are copied to the GPU.
const STAGED_BLOCKS: u64 = 3;

impl Pipeline {
    /// Plans the memory of a request on a GPU. Returns nothing if the CPU computes.
    ///
    /// # Errors
    /// [`Error::Memory`] if the request does not fit, even if all weights are copied for each step, and [`Error::Device`] if the
    /// driver has reset the GPU and it cannot be opened again.
    pub(super) fn gpu_plan(&self, parameters: &Parameters, edits: bool, previews: bool) -> Result<Option<Plan>> {
        let Some(gpu) = self.gpu()? else { return Ok(None) };
        let (width, height) = (parameters.width.unwrap_or(0), parameters.height.unwrap_or(0));
        let fixed = self.fixed_bytes();
        let available = self.memory.bytes(self.loras.bytes_in_use())?;
        let budget = available.saturating_sub(fixed);
        let context = self.context_tokens(parameters)?;
        let plan = |_, _| Plan { budget, ..self.beside_gpu(parameters, context) };
        let on_cpu = self.check_fits(&plan, (width, height), fixed, "memory".into(), "close other programs")?;

        let in_use = self.denoiser.bytes_in_use() + if self.vae.holds_decoder() { self.vae.decoder_bytes() } else { 0 };
        let others = gpu.in_use().saturating_sub(in_use);
        let shared = if gpu.shares_memory() { on_cpu.needed() } else { 0 };
        let available = self.gpu_memory.gpu_bytes(gpu.memory().saturating_sub(shared))?;
        gpu.set_limit(available);
        // LoRAs are copied to the GPU.
        let fixed = self.loras.bytes();
        let budget = available.saturating_sub(others + fixed);
        let plan = |width, height| {
            let source = edits.then_some((width, height));
            Plan { budget, ..self.on_gpu_with(parameters, context, source, previews, (width, height)) }
        };
        let memory = format!("the memory of {}", gpu.name());
        self.check_fits(&plan, (width, height), fixed, memory, "compute on the CPU").map(Some)
    }

    /// Returns the plan of a size if it fits. `fixed` bytes of the budget are used anyway.
    fn check_fits(
        &self,
        plan: &dyn Fn(u32, u32) -> Plan,
        (width, height): (u32, u32),
        fixed: u64,
        memory: String,
        other: &str,
    ) -> Result<Plan> {
        let requested = plan(width, height);
        if requested.needed() <= requested.budget {
            return Ok(requested);
        }
        Err(exceeded(memory, requested.needed() + fixed, requested.budget + fixed, self.remedy(plan, other)))
    }

    /// Returns the GPU, if the model computes there. If the driver has reset it, it is opened again, and the weights on it are
    /// read again.
    fn gpu(&self) -> Result<Option<Gpu>> {
        let Target::Gpu(gpu) = self.placement.target() else { return Ok(None) };
        if !gpu.is_lost() {
            return Ok(Some(gpu));
        }
        let gpu = gpu.reopened()?;
        self.place(Target::Gpu(gpu.clone()));
        self.denoiser.forget();
        self.vae.forget();
        self.tiny_decoder.iter().for_each(TinyDecoder::forget);
        Ok(Some(gpu))
    }

    /// Returns the memory of a GPU without which it cannot compute an image of the default size, in bytes.
    pub(super) fn least_gpu_bytes(&self) -> Result<u64> {
        let plan = self.on_gpu(&Parameters::default(), None, false, (self.default_side(), self.default_side()))?;
        Ok(plan.needed() + self.loras.bytes())
    }

    /// Returns what a request needs of the GPU's memory, with a budget of 0.
    pub(super) fn on_gpu(
        &self,
        parameters: &Parameters,
        source: Option<(u32, u32)>,
        previews: bool,
        size: (u32, u32),
    ) -> Result<Plan> {
        let context = self.context_tokens(parameters)?;
        Ok(self.on_gpu_with(parameters, context, source, previews, size))
    }

    /// Returns the same for prompts of `context` tokens.
    fn on_gpu_with(
        &self,
        parameters: &Parameters,
        context: usize,
        source: Option<(u32, u32)>,
        previews: bool,
        (width, height): (u32, u32),
    ) -> Plan {
        let patches = (width / self.side_multiple()) as usize * (height / self.side_multiple()) as usize;
        let tokens = patches + context;
        // On a GPU, results do not replace the values from which they are computed.
        let tiny = self.tiny_decoder.as_ref().map(|decoder| 2 * decoder.decoding_bytes(width, height));
        let previewed = tiny.filter(|_| previews).unwrap_or(0);
        let caches = self.cache_bytes(parameters, patches);
        let decoding = match (parameters.decoder, tiny) {
            (Decoder::Tiny, Some(bytes)) => bytes,
            _ => self.vae.gpu_decoding_bytes(width, height),
        };
        let mut phases = vec![
            (Phase::Text, self.text.gpu_working_bytes(&reading(parameters), 2, context, self.t5_on_cpu)),
            (Phase::Denoise, self.denoiser.gpu_working_bytes(tokens) + previewed + caches),
            (Phase::Decode, decoding),
        ];
        let encoding =
            self.encoded(source, previews).map(|(width, height)| self.vae.gpu_encoding_bytes(width, height)).max();
        phases.extend(encoding.map(|bytes| (Phase::Encode, bytes)));
        Plan { phases, blocks: self.denoiser.block_bytes(), streams: false, budget: 0 }
    }

    /// Returns what a request on a GPU needs of the computer's memory, with a budget of 0.
    fn beside_gpu(&self, parameters: &Parameters, context: usize) -> Plan {
        let text = match self.t5_on_cpu {
            true => self.text.working_bytes(&reading(parameters), 2, context),
            false => STAGED_BLOCKS * self.text.largest_block_bytes(),
        };
        let denoiser = STAGED_BLOCKS * self.denoiser.block_bytes().into_iter().max().unwrap_or(0);
        let phases = vec![(Phase::Text, text), (Phase::Denoise, denoiser)];
        Plan { phases, blocks: Vec::new(), streams: false, budget: 0 }
    }

    /// Returns the largest number of bytes of the GPU's buffers so far, or 0 if the CPU computes.
    pub(crate) fn gpu_peak(&self) -> u64 {
        match self.placement.target() {
            Target::Cpu => 0,
            Target::Gpu(gpu) => gpu.peak(),
        }
    }

    /// Frees the memory of the GPU that nothing refers to.
    pub(super) fn free_buffers(&self) {
        if let Target::Gpu(gpu) = self.placement.target() {
            // The next computation reports the error.
            drop(gpu.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gpu::tests::unshared;
    use crate::parameters::{Callbacks, LoadOptions, Progress};
    use crate::placement::MemoryBudget;
    use crate::weights::ModelFiles;

    /// Opens the golden model on a GPU.
    fn golden(gpu: &Gpu) -> Pipeline {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model");
        let pipeline = Pipeline::open(&ModelFiles::Folder(folder), &LoadOptions::default()).unwrap();
        pipeline.place(Target::Gpu(gpu.clone()));
        pipeline
    }

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new("a red circle");
        (parameters.width, parameters.height, parameters.steps) = (Some(64), Some(48), Some(2));
        parameters.t5_tokens = Some(16);
        parameters
    }

    #[test]
    fn an_image_does_not_depend_on_the_budget_of_the_gpu_which_is_kept() {
        let gpu = unshared();
        let pipeline = golden(&gpu);
        let request = pipeline.request(&parameters(), (64, 48), None).unwrap();
        let run = |plan: &Plan| {
            let output = pipeline
                .run(&request, plan, None, Callbacks::none(), |image, stream| Ok(request.initial_noise(image, stream)));
            output.unwrap().images
        };
        // Two blocks fit, which are the present one and the next one.
        let tight = Plan { phases: Vec::new(), blocks: vec![1; 3], streams: false, budget: 2 };
        let limit = 2 << 20;
        gpu.set_limit(limit);
        let expected = run(&tight);
        assert!(gpu.peak() <= limit, "{}", gpu.peak());
        assert_eq!((pipeline.denoiser.bytes_in_use(), gpu.allocated()), (0, gpu.in_use()));

        gpu.set_limit(0);
        let free = pipeline.gpu_plan(&request.parameters, false, false).unwrap().unwrap();
        assert_eq!(free.blocks(Phase::Denoise), 3);
        assert!(run(&free) == expected);
        assert!(gpu.peak() > limit, "{}", gpu.peak());
        assert!(pipeline.denoiser.bytes_in_use() > 0 && gpu.in_use() > pipeline.denoiser.bytes_in_use());
    }

    #[test]
    fn previews_of_a_tiny_decoder_encode_nothing() {
        let gpu = unshared();
        for with_tiny_decoder in [false, true] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let tiny_decoder = with_tiny_decoder.then(|| folder.join("tiny_decoder/original.safetensors"));
            let options = LoadOptions { tiny_decoder, ..LoadOptions::default() };
            let pipeline = Pipeline::open(&ModelFiles::Folder(folder.join("model")), &options).unwrap();
            pipeline.place(Target::Gpu(gpu.clone()));
            let plan = pipeline.on_gpu(&parameters(), None, true, (64, 48)).unwrap();
            let encodes = plan.phases.iter().any(|(phase, _)| *phase == Phase::Encode);
            assert_eq!(encodes, !with_tiny_decoder);
        }
    }

    #[test]
    fn a_request_that_exceeds_the_memory_of_the_gpu_is_refused_with_its_name() {
        let gpu = unshared();
        let mut pipeline = golden(&gpu);
        pipeline.gpu_memory = MemoryBudget::GiB(0.01);
        let error = pipeline.generate(&parameters(), Callbacks::none()).unwrap_err().to_string();
        assert!(error.contains(&format!("GiB of the memory of {}, but only 0.01 GiB", gpu.name())), "{error}");
        assert!(error.contains("compute on the CPU"), "{error}");
        pipeline.gpu_memory = MemoryBudget::GiB(-1.0);
        let error = pipeline.generate(&parameters(), Callbacks::none()).unwrap_err().to_string();
        assert!(error.starts_with("`gpu_memory` is -1 GiB"), "{error}");
        pipeline.gpu_memory = MemoryBudget::Available;
        assert!(pipeline.generate(&parameters(), Callbacks::none()).is_ok());
    }

    #[test]
    fn a_lost_gpu_is_an_error_and_the_next_request_opens_it_again() {
        let gpu = unshared();
        let pipeline = golden(&gpu);
        let expected = pipeline.generate(&parameters(), Callbacks::none()).unwrap().images;
        let lose = |progress| {
            if matches!(progress, Progress::Step { step: 1, .. }) {
                gpu.lose();
            }
        };
        let error = pipeline.generate(&parameters(), Callbacks::new(&|| false, &lose)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: the device was lost", gpu.name())), "{error}");
        assert!(error.contains("try again"), "{error}");

        assert!(pipeline.generate(&parameters(), Callbacks::none()).unwrap().images == expected);
        assert!(!matches!(pipeline.placement.target(), Target::Gpu(other) if other == gpu));
        // The weights are on the new device only.
        assert_eq!((pipeline.denoiser.bytes_in_use() > 0, gpu.in_use()), (true, 0));
    }

    #[test]
    fn t5_computes_on_the_cpu_by_choice() {
        let gpu = unshared();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model");
        let images = [false, true].map(|t5_on_cpu| {
            let options = LoadOptions { t5_on_cpu, ..LoadOptions::default() };
            let pipeline = Pipeline::open(&ModelFiles::Folder(folder.clone()), &options).unwrap();
            pipeline.place(Target::Gpu(gpu.clone()));
            assert_eq!(matches!(pipeline.t5_placement.target(), Target::Cpu), t5_on_cpu);
            pipeline.generate(&parameters(), Callbacks::none()).unwrap().images.remove(0)
        });
        let [all, rest] = images.each_ref().map(crate::image::RgbImage::pixels);
        assert!(all.iter().zip(rest).all(|(a, b)| a.abs_diff(*b) <= 1));
    }
}
