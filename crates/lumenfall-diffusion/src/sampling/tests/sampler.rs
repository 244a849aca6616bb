use std::ops::ControlFlow;

use super::super::sampler::{StepResult, Velocity};
use super::super::{Point, Sampler, Schedule, Step, sample};
use super::{Golden, SAMPLERS, TOLERANCE, assert_close, scheduler};
use crate::error::{Error, Result};

/// The velocity of `tools/sampling_golden.py`.
fn velocity(latent: &[f32], point: Point) -> Result<Vec<f32>> {
    let neighbours = latent.iter().cycle().skip(1);
    let values = latent.iter().zip(neighbours);
    Ok(values.map(|(value, next)| (0.7 * value + 0.3 * next + point.timestep / 1000.0).tanh()).collect())
}

/// The parts of a run.
struct Run {
    latents: Vec<Vec<f32>>,
    result: Vec<f32>,
    predictions: usize,
    noises: usize,
}

fn run(golden: &Golden, sampler: Sampler, steps: &[Step], stop_after: usize) -> Run {
    let noises = golden.rows("noises");
    let (mut latents, mut predictions, mut drawn) = (Vec::new(), 0, 0);
    let result = sample(
        sampler,
        steps,
        golden.get("latent").to_vec(),
        &mut |latent, point| {
            predictions += 1;
            assert_eq!(point.sigma, steps[point.step].sigma);
            velocity(latent, point)
        },
        &mut || {
            drawn += 1;
            Ok(noises[drawn - 1].to_vec())
        },
        &mut |StepResult { completed, latent, denoised }| {
            latents.push(latent.to_vec());
            assert_eq!(completed, latents.len());
            assert_eq!(denoised.len(), latent.len());
            Ok(if completed == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        },
    );
    Run { latents, result: result.unwrap(), predictions, noises: drawn }
}

#[test]
fn samplers_equal_their_references() {
    let golden = Golden::open();
    for (name, sampler) in SAMPLERS {
        for (label, count, strength) in [("1", 1, 1.0), ("2", 2, 1.0), ("8", 8, 1.0), ("strength", 8, 0.6)] {
            let name = format!("{name}.{label}");
            let steps = scheduler(None, sampler, count).for_strength(strength).unwrap().steps();
            let run = run(&golden, sampler, &steps, 0);
            let expected = golden.rows(&format!("sampler.{name}"));
            assert_eq!(run.latents.len(), expected.len(), "{name}");
            for (step, (actual, expected)) in run.latents.iter().zip(expected).enumerate() {
                assert_close(actual, expected, TOLERANCE, &format!("{name}, step {step}"));
            }
            assert_eq!(Some(&run.result), run.latents.last(), "{name}");
            let heun = if sampler == Sampler::Heun { steps.len() - 1 } else { 0 };
            assert_eq!(run.predictions, steps.len() + heun, "{name}");
            let stochastic = matches!(sampler, Sampler::EulerAncestral | Sampler::Lcm);
            assert_eq!(run.noises, if stochastic { steps.len() - 1 } else { 0 }, "{name}");
        }
    }
}

#[test]
fn every_sampler_is_finite_with_every_schedule() {
    let golden = Golden::open();
    for (name, sampler) in SAMPLERS {
        for schedule in [
            Schedule::Shifted,
            Schedule::Karras,
            Schedule::Exponential,
            Schedule::Beta,
            Schedule::SgmUniform,
            Schedule::Simple,
            Schedule::DpmSolver,
            Schedule::UniPc,
            Schedule::Sigmas(vec![1.0, 0.999_999_94, 0.5, f32::MIN_POSITIVE]),
        ] {
            for count in 1..=6 {
                let is_list = matches!(schedule, Schedule::Sigmas(_));
                let steps = scheduler(Some(schedule.clone()), sampler, if is_list { 4 } else { count }).steps();
                let result = run(&golden, sampler, &steps, 0).result;
                assert!(result.iter().all(|value| value.is_finite()), "{name}, {schedule:?}, {count}");
                // The velocities are between -1 and 1. Only steps of very different lengths extrapolate far.
                let largest = result.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                assert!(is_list || largest < 10.0, "{name}, {schedule:?}, {count}: {largest}");
            }
        }
    }
}

#[test]
fn a_constant_velocity_is_integrated_exactly() {
    let golden = Golden::open();
    for (name, sampler) in SAMPLERS.into_iter().take(5) {
        let steps = scheduler(None, sampler, 5).steps();
        let latent = golden.get("latent").to_vec();
        let mut constant = |latent: &[f32], _: Point| Ok(vec![0.5; latent.len()]);
        let mut no_noise = || panic!("{name} adds no noise");
        let result = sample(sampler, &steps, latent.clone(), &mut constant, &mut no_noise, &mut |_| {
            Ok(ControlFlow::Continue(()))
        });
        let first = steps[0].sigma;
        let expected: Vec<f32> = latent.iter().map(|value| value - 0.5 * first).collect();
        assert_close(&result.unwrap(), &expected, TOLERANCE, name);
    }
}

#[test]
fn a_stopped_run_returns_the_predicted_image() {
    let golden = Golden::open();
    let steps = scheduler(None, Sampler::Euler, 8).steps();
    let stopped = run(&golden, Sampler::Euler, &steps, 3);
    assert_eq!(stopped.latents.len(), 3);
    let before = &stopped.latents[1];
    let predicted = velocity(before, Point { step: 2, sigma: steps[2].sigma, timestep: steps[2].timestep }).unwrap();
    let expected: Vec<f32> = before.iter().zip(predicted).map(|(x, v)| x - steps[2].sigma * v).collect();
    assert_close(&stopped.result, &expected, 1e-6, "predicted image");
}

#[test]
fn errors_end_a_run() {
    let steps = scheduler(None, Sampler::Lcm, 4).steps();
    let mut predict = |latent: &[f32], _: Point| Ok(latent.to_vec());
    let mut go_on = |_: StepResult<'_>| Ok(ControlFlow::Continue(()));
    let mut run = |velocity: &mut Velocity<'_>, noise: &mut dyn FnMut() -> Result<Vec<f32>>| {
        sample(Sampler::Lcm, &steps, vec![0.5; 4], velocity, noise, &mut go_on)
    };
    assert!(matches!(run(&mut |_, _| Err(Error::Cancelled), &mut || Ok(vec![0.0; 4])), Err(Error::Cancelled)));
    assert!(matches!(run(&mut predict, &mut || Err(Error::Cancelled)), Err(Error::Cancelled)));
}
