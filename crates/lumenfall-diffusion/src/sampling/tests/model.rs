//! Runs the denoiser of the golden model with samplers and guidance, and compares the latents with those of diffusers' pipeline and
//! guiders, and of the samplers of k-diffusion and ComfyUI.

use std::ops::ControlFlow;
use std::path::Path;

use super::super::{
    Forward, Guidance, GuidanceMethod, GuidancePlan, Sampler, Schedule, ScheduleOptions, Scheduler, SkipLayers,
    SkipWindow, sample,
};
use super::{Golden, assert_close};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::scheduler::SchedulerConfig;
use crate::models::{Conditioning, Mmdit, Omitted};
use crate::tensor::Tensor;
use crate::weights::ModelFiles;

const LATENT: [usize; 3] = [16, 4, 6];
const TOLERANCE: f32 = 1e-3;

/// Returns the latent after 8 steps.
fn denoise(
    golden: &Golden,
    config: &SchedulerConfig,
    denoiser: &Mmdit,
    (sampler, schedule): (Sampler, Option<Schedule>),
    guidance: &Guidance,
) -> Vec<f32> {
    let options = ScheduleOptions { schedule, ..Default::default() };
    let scheduler = Scheduler::with_options(config, &options, sampler, Some(8), 6).unwrap();
    let steps = scheduler.steps();
    let blocks = denoiser.config().num_layers;
    let plan = GuidancePlan::new(guidance, &steps, scheduler.shift(), blocks).unwrap();
    let mut guide = plan.guide();

    let never_cancelled = || Ok(());
    let prompts: Vec<Conditioning> =
        (golden.get("image.context").chunks(640).zip(golden.get("image.pooled").chunks(40)))
            .map(|(context, pooled)| Conditioning {
                context: Tensor::new(context.to_vec(), &[10, 64]).unwrap(),
                pooled: Tensor::new(pooled.to_vec(), &[1, 40]).unwrap(),
            })
            .collect();
    let contexts: Vec<Tensor> = prompts.iter().map(|prompt| denoiser.embed_context(prompt).unwrap()).collect();
    let mut noises = golden.get("image.noises").chunks(LATENT.iter().product());
    let result = sample(
        sampler,
        &steps,
        golden.get("image.latent").to_vec(),
        &mut |latent, point| {
            let conditions: Vec<_> = prompts.iter().map(|prompt| (point.timestep, &prompt.pooled)).collect();
            let modulations = denoiser.modulations(&conditions, &never_cancelled)?;
            let tensor = Tensor::new(latent.to_vec(), &LATENT)?;
            guide.velocity(point.step, latent.len(), &mut |forward| {
                let (prompt, skipped) = match forward {
                    Forward::Conditional => (0, &[][..]),
                    Forward::Unconditional => (1, &[][..]),
                    Forward::Skipping(layers) => (0, layers),
                };
                let omitted = Omitted { skipped, cache: None };
                let context = &contexts[prompt];
                let velocity = denoiser.forward(&tensor, context, &modulations, prompt, omitted, &never_cancelled);
                Ok(velocity?.into_values())
            })
        },
        &mut || Ok(noises.next().unwrap().to_vec()),
        &mut |_| Ok(ControlFlow::Continue(())),
    );
    result.unwrap()
}

#[test]
fn latents_equal_those_of_the_references() {
    let golden = Golden::open();
    let files = ModelFiles::Folder(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/model"));
    let Checkpoint { denoiser, scheduler, .. } = Checkpoint::open(&files).unwrap();
    let denoiser = Mmdit::open(denoiser).unwrap();
    let plain = Guidance { scale: 4.5, ..Default::default() };
    let skip = SkipLayers { layers: vec![1], scale: 2.8, window: SkipWindow::Steps { start: 0.01, end: 0.5 } };
    let with = |method| Guidance { method, ..plain.clone() };
    let projected = |momentum| with(GuidanceMethod::Projected { eta: 0.3, norm_threshold: 2.5, momentum });
    for (name, guidance) in [
        ("interval", Guidance { start: 0.25, end: 0.75, ..plain.clone() }),
        ("rescale", Guidance { rescale: 0.7, ..plain.clone() }),
        ("zero_star", with(GuidanceMethod::ZeroStar { zero_init_steps: 1 })),
        ("projected", projected(None)),
        ("momentum", projected(Some(-0.5))),
    ] {
        let latent = denoise(&golden, &scheduler, &denoiser, (Sampler::Euler, None), &guidance);
        assert_close(&latent, golden.get(&format!("image.guidance.{name}")), TOLERANCE, name);
    }
    for (name, sampler, schedule, guidance) in [
        ("euler", Sampler::Euler, None, plain.clone()),
        ("karras", Sampler::Euler, Some(Schedule::Karras), plain.clone()),
        ("heun", Sampler::Heun, None, plain.clone()),
        ("dpmpp_2m", Sampler::Dpmpp2m, None, plain.clone()),
        ("dpmpp_2m_flow", Sampler::Dpmpp2mFlow, None, plain.clone()),
        ("euler_ancestral", Sampler::EulerAncestral, None, plain.clone()),
        ("uni_pc", Sampler::UniPc, None, plain.clone()),
        ("lcm", Sampler::Lcm, None, Guidance { scale: 1.0, ..Default::default() }),
        ("skip_layers", Sampler::Euler, None, Guidance { skip_layers: Some(skip), ..plain }),
    ] {
        let latent = denoise(&golden, &scheduler, &denoiser, (sampler, schedule), &guidance);
        assert_close(&latent, golden.get(&format!("image.{name}")), TOLERANCE, name);
    }
}
