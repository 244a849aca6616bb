//! Random valid combinations of all options: no panic, and images that depend on nothing but the request.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::checkpoint::{Checkpoint, tests::quantised};
use crate::error::Error;
use crate::image::RgbImage;
use crate::lora::LoraFile;
use crate::parameters::{Callbacks, LoadOptions, Parameters, PipelineOutput};
use crate::pipeline::{Mask, Pipeline};
use crate::placement::MemoryBudget;
use crate::sampling::{
    CudaCard, DynamicShift, GuidanceMethod, Noise, Sampler, Schedule, Shift, SkipLayers, SkipWindow,
};
use crate::text::{LongPrompts, PromptWeights};
use crate::weights::ModelFiles;

const COMBINATIONS: u64 = 200;

/// The LoRAs of the models. The strength of the last one is fixed.
const LORAS: [&str; 5] = ["peft", "dora", "lokr_rows", "t5", "rslora"];

/// A generator of choices: splitmix64.
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % count
    }

    fn one<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize].clone()
    }

    fn chance(&mut self) -> bool {
        self.below(2) == 0
    }
}

#[derive(Clone)]
enum Mode {
    Generate,
    Edit(RgbImage, f32),
    Inpaint(RgbImage, Mask, f32),
}

/// A request, and the callbacks that it has.
struct Combination {
    parameters: Parameters,
    mode: Mode,
    previews: Option<u32>,
    /// Whether it ends at a deadline that does not pass.
    has_deadline: bool,
    is_quantised: bool,
}

fn combination(seed: u64) -> Combination {
    let mut choices = Choices(seed);
    let mut parameters = Parameters::new(choices.one(&["a red circle", "", "two\nlines", "a (red:1.3) [circle]"]));
    let (width, height) = (choices.one(&[16, 32]), choices.one(&[16, 48]));
    (parameters.width, parameters.height) = (Some(width), Some(height));
    parameters.t5_tokens = choices.one(&[Some(1), Some(8)]);
    parameters.text.weights = choices.one(&[PromptWeights::Off, PromptWeights::ComfyUi, PromptWeights::A1111]);
    parameters.text.long_prompts = choices.one(&[LongPrompts::Truncate, LongPrompts::Chunks]);
    parameters.text.clip_g_prompt = choices.one(&[None, None, None, Some("a (blue:0.4) star, ".repeat(20))]);
    parameters.seed = choices.one(&[0, 7, u64::MAX]);
    parameters.count = choices.one(&[1, 1, 1, 2]);
    let samplers = [
        Sampler::Euler,
        Sampler::Heun,
        Sampler::Dpmpp2m,
        Sampler::Dpmpp2mFlow,
        Sampler::UniPc,
        Sampler::EulerAncestral,
        Sampler::Lcm,
    ];
    parameters.sampler = choices.one(&samplers.map(Some).into_iter().chain([None]).collect::<Vec<_>>());
    parameters.schedule.schedule = choices.one(&[
        None,
        Some(Schedule::Shifted),
        Some(Schedule::Karras),
        Some(Schedule::Exponential),
        Some(Schedule::Beta),
        Some(Schedule::SgmUniform),
        Some(Schedule::Simple),
        Some(Schedule::DpmSolver),
        Some(Schedule::UniPc),
        Some(Schedule::Sigmas(vec![0.9, 0.5, 0.1])),
    ]);
    let own_sigmas = matches!(parameters.schedule.schedule, Some(Schedule::Sigmas(_)));
    parameters.steps = if own_sigmas { None } else { Some(choices.one(&[2, 2, 3])) };
    parameters.schedule.shift =
        choices.one(&[None, Some(Shift::Fixed(1.5)), Some(Shift::Dynamic(DynamicShift::default()))]);
    parameters.schedule.shift_terminal = choices.one(&[None, Some(0.05)]);
    let guidance = &mut parameters.guidance;
    guidance.scale = choices.one(&[0.0, 1.0, 3.0, 9.0]);
    (guidance.start, guidance.end) = choices.one(&[(0.0, 1.0), (0.4, 1.0), (0.0, 0.4)]);
    guidance.rescale = choices.one(&[0.0, 0.7]);
    guidance.method = choices.one(&[
        GuidanceMethod::Plain,
        GuidanceMethod::ZeroStar { zero_init_steps: 0 },
        GuidanceMethod::Projected { eta: 0.5, norm_threshold: 15.0, momentum: Some(-0.5) },
    ]);
    let window = choices.one(&[SkipWindow::Steps { start: 0.0, end: 1.0 }, SkipWindow::Sigma { start: 0.0, end: 0.8 }]);
    guidance.skip_layers = choices.chance().then(|| SkipLayers::new(vec![choices.below(3) as usize], 2.0, window));
    parameters.noise = choices.one(&[Noise::TorchCpu, Noise::TorchCuda(CudaCard::T4), Noise::Portable]);
    parameters.first_block_cache = choices.one(&[None, Some(0.2), Some(0.9)]);
    let values = 16 * width as usize / 8 * height as usize / 8 * parameters.count as usize;
    parameters.latents = choices.chance().then(|| (0..values).map(|i| (i as f32 * 0.7).sin()).collect());
    // Guidance of less than half of two steps is off everywhere.
    let guided = parameters.guidance.scale > 1.0 && parameters.guidance.end == 1.0;
    parameters.negative_prompt = (guided && choices.chance()).then(|| "blue".into());
    for name in &LORAS[..4] {
        let strength = choices.one(&[None, None, Some(1.0), Some(-0.5)]);
        parameters.loras.extend(strength.map(|strength| ((*name).to_owned(), strength)));
    }
    let source = || RgbImage::new(width, height, (0..width * height * 3).map(|i| (i % 251) as u8).collect()).unwrap();
    let strength = choices.one(&[0.7, 1.0]);
    let mode = match choices.below(3) {
        0 => Mode::Generate,
        1 => Mode::Edit(source(), strength),
        _ => {
            let alpha = (0..width * height).map(|i| [0, 128, 255][(i % 3) as usize]).collect();
            Mode::Inpaint(source(), Mask::new(width, height, alpha).unwrap(), strength)
        }
    };
    // An edit of strength 0.7 skips steps, so that guidance may be off in all others.
    if !matches!(mode, Mode::Generate) {
        parameters.negative_prompt = None;
    }
    let (previews, has_deadline) = (choices.one(&[None, Some(1), Some(2)]), choices.chance());
    Combination { parameters, mode, previews, has_deadline, is_quantised: choices.chance() }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The golden model with weights in f32 and with a denoiser in Q8_0, with LoRAs.
struct Models([Pipeline; 2]);

impl Models {
    fn open(threads: usize, memory: MemoryBudget) -> Self {
        let mut loras = LORAS.map(|name| {
            LoraFile::new(name, golden().join("lora").join(name).with_extension("safetensors")).strength(0.0)
        });
        loras[4] = loras[4].clone().strength(0.5).fixed();
        let options = LoadOptions { threads: Some(threads), memory, loras: loras.into(), ..LoadOptions::default() };
        let folder = || Checkpoint::open(&ModelFiles::Folder(golden().join("model"))).unwrap();
        Self([folder(), quantised()].map(|checkpoint| Pipeline::new(checkpoint, &options).unwrap()))
    }

    fn try_run(&self, combination: &Combination) -> crate::Result<PipelineOutput> {
        let Combination { parameters, mode, previews, has_deadline, is_quantised } = combination;
        let pipeline = &self.0[usize::from(*is_quantised)];
        let mut callbacks = Callbacks::none();
        if let Some(every) = previews {
            callbacks = callbacks.with_previews(*every, &|_| {});
        }
        if *has_deadline {
            callbacks = callbacks.with_deadline(Instant::now() + Duration::from_secs(3600));
        }
        match mode {
            Mode::Generate => pipeline.generate(parameters, callbacks),
            Mode::Edit(source, strength) => pipeline.edit(source, *strength, parameters, callbacks),
            Mode::Inpaint(source, mask, strength) => pipeline.inpaint(source, mask, *strength, parameters, callbacks),
        }
    }

    fn run(&self, combination: &Combination) -> Vec<RgbImage> {
        let Combination { parameters, .. } = combination;
        let output = self.try_run(combination).unwrap_or_else(|error| panic!("{parameters:?}: {error}"));
        assert_eq!(output.images.len(), parameters.count as usize);
        output.images
    }
}

/// Returns the least budget with which all combinations run.
fn least_memory(combinations: &[Combination], threads: usize) -> MemoryBudget {
    let models = Models::open(threads, MemoryBudget::GiB(1e-9));
    let needed = combinations.iter().map(|combination| match models.try_run(combination) {
        Err(Error::Memory { needed_gib, .. }) => needed_gib,
        other => panic!("{other:?}"),
    });
    MemoryBudget::GiB(needed.fold(0.0, f64::max))
}

#[test]
fn images_of_random_options_do_not_depend_on_threads_memory_or_earlier_requests() {
    let combinations: Vec<_> = (0..COMBINATIONS).map(combination).collect();
    let first = Models::open(1, MemoryBudget::Available);
    let expected: Vec<_> = combinations.iter().map(|combination| first.run(combination)).collect();
    let second = Models::open(3, least_memory(&combinations, 3));
    for (seed, (combination, expected)) in combinations.iter().zip(&expected).enumerate().rev() {
        assert!(second.run(combination) == *expected, "the images of combination {seed} differ");
    }
}

/// Returns the peak signal-to-noise ratio in decibels.
fn psnr(a: &RgbImage, b: &RgbImage) -> f64 {
    let squares: f64 = a.pixels().iter().zip(b.pixels()).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.pixels().len() as f64 / squares).log10()
}

#[test]
fn one_request_has_loras_a_mask_prompt_weights_another_sampler_rescaled_guidance_and_quantised_weights() {
    let (width, height) = (48, 32);
    let source = RgbImage::new(width, height, (0..width * height * 3).map(|i| (i % 251) as u8).collect()).unwrap();
    // The left half is drawn.
    let is_kept = |pixel: u32| pixel % width >= width / 2;
    let alpha = (0..width * height).map(|pixel| if is_kept(pixel) { 255 } else { 0 }).collect();
    let mut parameters = Parameters {
        negative_prompt: Some("a blue square".into()),
        steps: Some(6),
        sampler: Some(Sampler::Dpmpp2m),
        loras: [("peft".to_owned(), 0.8), ("dora".to_owned(), 1.0)].into(),
        t5_tokens: Some(16),
        seed: 3,
        ..Parameters::new("a (red:1.3) circle on a white background")
    };
    parameters.text.weights = PromptWeights::ComfyUi;
    (parameters.guidance.scale, parameters.guidance.rescale) = (6.0, 0.7);
    let mode = Mode::Inpaint(source.clone(), Mask::new(width, height, alpha).unwrap(), 0.9);
    let combined = Combination { parameters, mode, previews: Some(2), has_deadline: true, is_quantised: true };
    let models = Models::open(2, MemoryBudget::Available);
    let image = models.run(&combined).remove(0);
    for (pixel, (actual, source)) in image.pixels().chunks(3).zip(source.pixels().chunks(3)).enumerate() {
        assert!(!is_kept(pixel as u32) || actual == source, "pixel {pixel}");
    }

    let with = |change: &dyn Fn(&mut Combination)| {
        let mut changed = Combination {
            parameters: combined.parameters.clone(),
            mode: combined.mode.clone(),
            previews: None,
            has_deadline: false,
            is_quantised: true,
        };
        change(&mut changed);
        models.run(&changed).remove(0)
    };
    assert!(with(&|_| {}) == image, "previews and a deadline change the image");
    let precise = with(&|combined| combined.is_quantised = false);
    assert!(precise != image && psnr(&precise, &image) > 30.0, "{} dB", psnr(&precise, &image));
    // Each option has an effect.
    for without in [
        with(&|combined| combined.parameters.sampler = None),
        with(&|combined| combined.parameters.text.weights = PromptWeights::Off),
        with(&|combined| combined.parameters.guidance.rescale = 0.0),
        with(&|combined| combined.parameters.loras.retain(|name, _| name != "peft")),
        with(&|combined| combined.parameters.loras.retain(|name, _| name != "dora")),
        with(&|combined| combined.parameters.negative_prompt = None),
        with(&|combined| combined.mode = Mode::Edit(source.clone(), 0.9)),
    ] {
        assert!(without != image);
    }
}
