//! The memory of the pipeline's requests.

use super::Pipeline;
use super::preview;
use super::prompts::{reading, texts};
use crate::error::{Error, Result};
use crate::parameters::{Decoder, Parameters};
#[cfg(feature = "gpu")]
use crate::placement::Target;
use crate::placement::{Phase, Plan};

/// The memory that is not planned in detail, in bytes: the code, the tokenizers, recently encoded prompts, and freed memory that the
/// allocator does not return, of which there were up to 121 MiB in a model of full size with the least budget.
const BASE_BYTES: u64 = 300 << 20;

/// The memory of a thread, in bytes: its stack, and the packed parts of the matrices that it multiplies.
const THREAD_BYTES: u64 = 8 << 20;

impl Pipeline {
    /// Plans the memory of a request, whose parameters contain the size of the image. `edits` is whether it has a source.
    ///
    /// # Errors
    /// [`Error::Memory`] if the request does not fit, even if all weights are read for each step.
    pub(super) fn plan(&self, parameters: &Parameters, edits: bool, previews: bool) -> Result<Plan> {
        #[cfg(feature = "gpu")]
        if let Some(plan) = self.gpu_plan(parameters, edits, previews)? {
            return Ok(plan);
        }
        let decoder = if self.vae.holds_decoder() { self.vae.decoder_bytes() } else { 0 };
        let fixed = self.fixed_bytes();
        let in_use = self.denoiser.bytes_in_use() + self.denoiser.ends_in_use() + decoder + self.loras.bytes_in_use();
        let available = self.memory.bytes(in_use)?;
        let context = self.context_tokens(parameters)?;
        let plan = |width, height| Plan {
            phases: self.phases(parameters, context, edits.then_some((width, height)), previews, (width, height)),
            blocks: self.denoiser.block_bytes(),
            streams: self.denoiser.weights().stay_in_files(),
            budget: available.saturating_sub(fixed),
        };
        let requested = plan(parameters.width.unwrap_or(0), parameters.height.unwrap_or(0));
        if requested.needed() <= requested.budget {
            return Ok(requested);
        }
        let remedy = self.remedy(&plan, "close other programs");
        Err(exceeded("memory".into(), requested.needed() + fixed, available, remedy))
    }

    /// Returns what to do about a request that does not fit. `plan` plans an image of a width and height.
    pub(super) fn remedy(&self, plan: &dyn Fn(u32, u32) -> Plan, other: &str) -> String {
        let mut sides = (1..=self.max_side() / self.side_multiple()).rev().map(|count| count * self.side_multiple());
        let fits = |side: &u32| {
            let smaller = plan(*side, *side);
            smaller.needed() <= smaller.budget
        };
        match sides.find(fits).filter(|side| *side >= self.default_side() / 4) {
            Some(side) => format!("an image of {side}x{side} would fit"),
            // Weights that stay in their files need no memory.
            None if plan(0, 0).streams => format!("allow more, or {other}"),
            None => format!("allow more, {other}, or use a model with smaller weights, such as a Q4_K file"),
        }
    }

    /// Returns the memory with which a request reads no weight twice, and the least memory, in bytes: that of the GPU if the
    /// model computes there.
    pub(super) fn memory_for(&self, parameters: &Parameters) -> Result<(u64, u64)> {
        let size = (parameters.width.unwrap_or(0), parameters.height.unwrap_or(0));
        #[cfg(feature = "gpu")]
        if let Target::Gpu(_) = self.placement.target() {
            let (plan, fixed) = (self.on_gpu(parameters, None, false, size)?, self.loras.bytes());
            return Ok((plan.wanted() + fixed, plan.needed() + fixed));
        }
        let phases = self.phases(parameters, self.context_tokens(parameters)?, None, false, size);
        let streams = self.denoiser.weights().stay_in_files();
        let plan = Plan { phases, blocks: self.denoiser.block_bytes(), streams, budget: 0 };
        Ok((plan.wanted() + self.fixed_bytes(), plan.needed() + self.fixed_bytes()))
    }

    /// Returns the number of tokens of the longer prompt.
    pub(super) fn context_tokens(&self, parameters: &Parameters) -> Result<usize> {
        self.text.context_tokens(&texts(parameters), &reading(parameters))
    }

    /// Returns the memory that all phases need.
    pub(super) fn fixed_bytes(&self) -> u64 {
        BASE_BYTES + self.threads.current_num_threads() as u64 * THREAD_BYTES + self.loras.bytes()
    }

    /// Returns what each phase needs besides the blocks of the denoiser.
    fn phases(
        &self,
        parameters: &Parameters,
        context: usize,
        source: Option<(u32, u32)>,
        previews: bool,
        (width, height): (u32, u32),
    ) -> Vec<(Phase, u64)> {
        let patches = (width / self.side_multiple()) as usize * (height / self.side_multiple()) as usize;
        let tokens = patches + context;
        let threads = self.threads.current_num_threads();
        let tiny = self.tiny_decoder.as_ref().map(|decoder| decoder.decoding_bytes(width, height));
        let forward = self.denoiser.forward_bytes(tokens, threads);
        let caches = self.cache_bytes(parameters, patches);
        // Forward passes and previews alternate.
        let denoise = forward.max(tiny.filter(|_| previews).unwrap_or(0)) + caches;
        let decode = match (parameters.decoder, tiny) {
            (Decoder::Tiny, Some(bytes)) => bytes,
            _ => self.vae.decoding_bytes(width, height, threads),
        };
        let mut phases = vec![
            (Phase::Text, self.text.working_bytes(&reading(parameters), 2, context)),
            (Phase::Denoise, self.denoiser.lasting_bytes() + denoise),
            (Phase::Decode, decode),
        ];
        let encoding =
            self.encoded(source, previews).map(|(width, height)| self.vae.encoding_bytes(width, height, threads)).max();
        phases.extend(encoding.map(|bytes| (Phase::Encode, bytes)));
        phases
    }

    /// Returns the sizes of the images that the autoencoder encodes: the source, and those to which previews are fitted.
    pub(super) fn encoded(
        &self,
        source: Option<(u32, u32)>,
        previews: bool,
    ) -> impl Iterator<Item = (u32, u32)> + use<> {
        let fits_previews = previews && self.tiny_decoder.is_none();
        source.into_iter().chain(fits_previews.then_some((preview::SIDE, preview::SIDE)))
    }

    /// Returns the memory of a request's first-block caches, in bytes.
    pub(super) fn cache_bytes(&self, parameters: &Parameters, patches: usize) -> u64 {
        match parameters.first_block_cache {
            Some(_) => self.denoiser.cache_bytes(patches, parameters.guidance.most_forwards()),
            None => 0,
        }
    }

    /// Frees memory for a phase of a request.
    pub(super) fn enter(&self, phase: Phase, plan: &Plan) {
        self.denoiser.keep_blocks(plan.blocks(phase));
        // The decoder stays in memory if there is room for it in addition to everything else.
        self.vae.keep_decoder(plan.wanted().saturating_add(self.vae.decoder_bytes()) <= plan.budget);
        #[cfg(feature = "gpu")]
        self.free_buffers();
    }
}

/// Returns the error of a request that needs more bytes of a memory than are available.
pub(super) fn exceeded(memory: String, needed: u64, available: u64, remedy: String) -> Error {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    Error::Memory { memory, needed_gib: gib(needed), available_gib: gib(available), remedy }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::parameters::{Callbacks, LoadOptions};
    use crate::placement::MemoryBudget;
    use crate::sampling::NoiseStream;
    use crate::weights::ModelFiles;

    fn golden() -> Pipeline {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model");
        Pipeline::open(&ModelFiles::Folder(folder), &LoadOptions::default()).unwrap()
    }

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new("a red circle");
        (parameters.width, parameters.height, parameters.steps) = (Some(64), Some(48), Some(2));
        parameters
    }

    fn gib(bytes: u64) -> MemoryBudget {
        MemoryBudget::GiB(bytes as f64 / (1u64 << 30) as f64)
    }

    #[test]
    fn an_image_does_not_depend_on_the_blocks_that_stay_in_memory() {
        let pipeline = golden();
        for first_block_cache in [None, Some(0.9)] {
            let parameters = Parameters { first_block_cache, steps: Some(5), ..parameters() };
            let expected = pipeline.generate(&parameters, Callbacks::none()).unwrap();
            assert_eq!(expected.skipped_forwards[0] > 0, first_block_cache.is_some());
            assert!(pipeline.denoiser.bytes_in_use() > 0);
            // Two blocks fit, which are the present one and the next one.
            let plan = Plan { phases: Vec::new(), blocks: vec![1; 3], streams: false, budget: 2 };
            assert_eq!(plan.blocks(Phase::Denoise), 0);
            let request = pipeline.request(&parameters, (64, 48), None).unwrap();
            let initial = |image, stream: &mut _| Ok(request.initial_noise(image, stream));
            let output = pipeline.run(&request, &plan, None, Callbacks::none(), initial).unwrap();
            assert!(output.images == expected.images && output.skipped_forwards == expected.skipped_forwards);
            assert_eq!(pipeline.denoiser.bytes_in_use(), 0);
        }
    }

    #[test]
    fn the_plan_counts_caches_and_the_tiny_decoder() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let tiny_decoder = Some(golden.join("tiny_decoder/original.safetensors"));
        let options = LoadOptions { tiny_decoder, threads: Some(1), ..LoadOptions::default() };
        let pipeline = Pipeline::open(&ModelFiles::Folder(golden.join("model")), &options).unwrap();
        let need = |parameters: &Parameters, previews, phase| {
            let phases = pipeline.phases(parameters, 333, None, previews, (192, 192));
            phases.into_iter().find(|(planned, _)| *planned == phase).unwrap().1
        };
        let decoding = pipeline.tiny_decoder.as_ref().unwrap().decoding_bytes(192, 192);
        assert!(decoding > 3 * 4 * 8 * 192 * 192);
        let tiny = Parameters { decoder: Decoder::Tiny, ..parameters() };
        assert_eq!(need(&tiny, false, Phase::Decode), decoding);
        assert_ne!(need(&parameters(), false, Phase::Decode), decoding);

        // A preview of this size needs more than a forward pass of the golden model.
        let plain = need(&parameters(), false, Phase::Denoise);
        assert_eq!(need(&parameters(), true, Phase::Denoise), pipeline.denoiser.lasting_bytes() + decoding);
        let cached = Parameters { first_block_cache: Some(0.1), ..parameters() };
        // 144 image tokens of 32 values: two tensors for each of two prompts, and two more.
        assert_eq!(need(&cached, false, Phase::Denoise), plain + 6 * 144 * 32 * 4);
    }

    #[test]
    fn the_encoder_that_fits_previews_is_planned() {
        let pipeline = golden();
        pipeline.generate(&parameters(), Callbacks::none()).unwrap();
        let request = pipeline.request(&parameters(), (64, 48), None).unwrap();
        let encoding = |previews| {
            let phases = pipeline.plan(&request.parameters, false, previews).unwrap().phases;
            phases.into_iter().find(|(phase, _)| *phase == Phase::Encode)
        };
        assert_eq!(encoding(false), None);
        assert_eq!(
            encoding(true),
            Some((Phase::Encode, pipeline.vae.encoding_bytes(64, 64, pipeline.threads.current_num_threads())))
        );

        // Two of three blocks fit in addition to the encoder, and all fit in the other phases.
        let plan = Plan { phases: vec![(Phase::Encode, 3)], blocks: vec![1; 3], streams: false, budget: 5 };
        let sizes = pipeline.denoiser.block_bytes();
        for is_fitted in [false, true] {
            let in_use = Mutex::new(Vec::new());
            let record = || {
                in_use.lock().unwrap().push(pipeline.denoiser.bytes_in_use());
                false
            };
            let callbacks = Callbacks::new(&record, &|_| {}).with_previews(1, &|_| {});
            let start = |image, stream: &mut NoiseStream| Ok(request.initial_noise(image, stream));
            pipeline.run(&request, &plan, None, callbacks, start).unwrap();
            let in_use = in_use.into_inner().unwrap();
            // The prompt is encoded already, so that the first check is that of the encoder.
            let first: u64 = sizes.iter().take(if is_fitted { 3 } else { 2 }).sum();
            assert_eq!((in_use[0], in_use[in_use.len() - 1]), (first, sizes.iter().sum()));
        }
    }

    #[test]
    fn a_request_that_does_not_fit_is_refused_with_what_would_fit() {
        let mut pipeline = golden();
        let fixed = pipeline.fixed_bytes();
        let mut large = parameters();
        (large.width, large.height, large.steps, large.t5_tokens) = (Some(192), Some(192), Some(1), Some(16));
        let needed = pipeline.plan(&large, false, false).unwrap().needed();
        pipeline.memory = gib(needed + fixed);
        pipeline.generate(&large, Callbacks::none()).unwrap();
        pipeline.memory = gib(needed + fixed - 1000);
        let error = pipeline.generate(&large, Callbacks::none()).unwrap_err().to_string();
        assert!(error.contains("GiB") && error.ends_with("an image of 176x176 would fit"), "{error}");
        pipeline.memory = gib(1000);
        let error = pipeline.generate(&large, Callbacks::none()).unwrap_err().to_string();
        assert!(error.ends_with("allow more, or close other programs"), "{error}");
    }
}
