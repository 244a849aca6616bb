//! Random valid combinations of all options: no panic, and images that depend on nothing but the request.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::path::Path;

use lumenfall_diffusion::{
    Callbacks, CudaCard, DynamicShift, GuidanceMethod, LoadOptions, Mask, ModelFiles, Noise, Parameters, Pipeline,
    PipelineOutput, RgbImage, Sampler, Schedule, Shift, SkipLayers, SkipWindow,
};

const COMBINATIONS: u64 = 200;

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

enum Mode {
    Generate,
    Edit(RgbImage, f32),
    Inpaint(RgbImage, Mask, f32),
}

fn combination(seed: u64) -> (Parameters, Mode) {
    let mut choices = Choices(seed);
    let mut parameters = Parameters::new(choices.one(&["a red circle", "", "two\nlines"]));
    let (width, height) = (choices.one(&[16, 32]), choices.one(&[16, 48]));
    (parameters.width, parameters.height) = (Some(width), Some(height));
    parameters.t5_tokens = choices.one(&[Some(1), Some(8)]);
    parameters.seed = choices.one(&[0, 7, u64::MAX]);
    parameters.count = choices.one(&[1, 1, 2]);
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
    parameters.steps = if own_sigmas { None } else { Some(choices.one(&[2, 3])) };
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
    let values = 16 * width as usize / 8 * height as usize / 8 * parameters.count as usize;
    parameters.latents = choices.chance().then(|| (0..values).map(|i| (i as f32 * 0.7).sin()).collect());
    // Guidance of less than half of two steps is off everywhere.
    let guided = parameters.guidance.scale > 1.0 && parameters.guidance.end == 1.0;
    parameters.negative_prompt = (guided && choices.chance()).then(|| "blue".into());
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
    (parameters, mode)
}

fn run(pipeline: &Pipeline, parameters: &Parameters, mode: &Mode) -> PipelineOutput {
    let callbacks = Callbacks::none().with_previews(1, &|_| {});
    match mode {
        Mode::Generate => pipeline.generate(parameters, callbacks),
        Mode::Edit(source, strength) => pipeline.edit(source, *strength, parameters, callbacks),
        Mode::Inpaint(source, mask, strength) => pipeline.inpaint(source, mask, *strength, parameters, callbacks),
    }
    .unwrap_or_else(|error| panic!("{parameters:?}: {error}"))
}

#[test]
fn images_of_random_options_do_not_depend_on_threads_or_earlier_requests() {
    let files = ModelFiles::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model"));
    let pipelines = [1, 3].map(|threads| {
        let mut options = LoadOptions::default();
        options.threads = Some(threads);
        Pipeline::open(&files, &options).unwrap()
    });
    for seed in 0..COMBINATIONS {
        let (parameters, mode) = combination(seed);
        let [first, second] = pipelines.each_ref().map(|pipeline| run(pipeline, &parameters, &mode));
        assert_eq!(first.images.len(), parameters.count as usize);
        assert!(first.images == second.images, "{parameters:?}");
    }
}
