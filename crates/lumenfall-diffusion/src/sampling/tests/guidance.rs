use super::super::{Forward, Guidance, GuidanceMethod, GuidancePlan, Sampler, SkipLayers, SkipWindow};
use super::{Golden, TOLERANCE, assert_close, scheduler};

const BLOCKS: usize = 24;

/// Runs guidance for the four golden predictions. Returns the velocities and the number of forward passes of each step.
fn guided(golden: &Golden, guidance: &Guidance) -> (Vec<Vec<f32>>, Vec<usize>) {
    let rows = golden.rows("predictions");
    let steps = scheduler(None, Sampler::Euler, 4).steps();
    let plan = GuidancePlan::new(guidance, &steps, 3.0, BLOCKS).unwrap();
    let mut guide = plan.guide();
    let mut counts = Vec::new();
    let velocities = (0..4).map(|step| {
        let mut count = 0;
        let velocity = guide.velocity(step, rows[0].len(), &mut |forward| {
            count += 1;
            Ok(match forward {
                Forward::Conditional => rows[step],
                Forward::Unconditional => rows[4 + step],
                Forward::Skipping(layers) => {
                    assert_eq!(layers, [7, 8, 9]);
                    rows[8 + step]
                }
            }
            .to_vec())
        });
        assert_eq!(count, plan.forwards(step));
        counts.push(count);
        velocity.unwrap()
    });
    (velocities.collect(), counts)
}

#[test]
fn guidance_equals_that_of_diffusers() {
    let golden = Golden::open();
    let projected = |momentum| GuidanceMethod::Projected { eta: 0.3, norm_threshold: 2.5, momentum };
    let skip = SkipLayers { window: SkipWindow::Steps { start: 0.01, end: 0.75 }, ..SkipLayers::diffusers() };
    let default = Guidance { scale: 4.5, ..Default::default() };
    for (name, guidance, forwards) in [
        ("plain", default.clone(), [2, 2, 2, 2]),
        ("interval", Guidance { start: 0.25, end: 0.75, ..default.clone() }, [1, 2, 2, 1]),
        ("rescale", Guidance { rescale: 0.7, ..default.clone() }, [2, 2, 2, 2]),
        (
            "zero_star",
            Guidance { method: GuidanceMethod::ZeroStar { zero_init_steps: 1 }, ..default.clone() },
            [0, 2, 2, 2],
        ),
        ("projected", Guidance { method: projected(None), ..default.clone() }, [2, 2, 2, 2]),
        ("momentum", Guidance { method: projected(Some(-0.5)), ..default.clone() }, [2, 2, 2, 2]),
        ("skip_layers", Guidance { skip_layers: Some(skip.clone()), ..default.clone() }, [2, 3, 3, 2]),
        ("skip_layers_rescale", Guidance { skip_layers: Some(skip), rescale: 0.7, ..default.clone() }, [2, 3, 3, 2]),
    ] {
        let (velocities, counts) = guided(&golden, &guidance);
        assert_eq!(counts, forwards, "{name}");
        for (step, expected) in golden.rows(&format!("guidance.{name}")).into_iter().enumerate() {
            assert_close(&velocities[step], expected, TOLERANCE, &format!("{name}, step {step}"));
        }
        // The momentum of one image has no effect on the next one.
        assert_eq!(guided(&golden, &guidance).0, velocities, "{name}");
    }
}

#[test]
fn guidance_of_1_runs_the_model_once() {
    let golden = Golden::open();
    for method in [
        GuidanceMethod::Plain,
        GuidanceMethod::ZeroStar { zero_init_steps: 1 },
        GuidanceMethod::Projected { eta: 1.0, norm_threshold: 15.0, momentum: Some(0.5) },
    ] {
        let guidance = Guidance {
            scale: 1.0,
            rescale: 0.7,
            method,
            skip_layers: Some(SkipLayers::comfyui()),
            ..Guidance::default()
        };
        let (velocities, counts) = guided(&golden, &guidance);
        assert_eq!(counts, [1, 1, 1, 1]);
        assert_eq!(velocities.concat(), golden.rows("predictions")[..4].concat());
        let steps = scheduler(None, Sampler::Euler, 4).steps();
        assert!(!GuidancePlan::new(&guidance, &steps, 3.0, BLOCKS).unwrap().uses_negative_prompt());
    }
}

#[test]
fn published_settings_of_skip_layers_have_their_steps() {
    let active = |skip: SkipLayers, count| {
        let scheduler = scheduler(None, Sampler::Euler, count);
        let guidance = Guidance { skip_layers: Some(skip), ..Default::default() };
        let plan = GuidancePlan::new(&guidance, &scheduler.steps(), scheduler.shift(), BLOCKS).unwrap();
        (0..count as usize).filter(|step| plan.forwards(*step) == 3).collect::<Vec<_>>()
    };
    assert_eq!(active(SkipLayers::diffusers(), 28), [1, 2, 3, 4, 5]);
    assert!(active(SkipLayers::diffusers(), 4).is_empty());
    assert_eq!(active(SkipLayers::stability(), 50), (1..15).collect::<Vec<_>>());
    // ComfyUI: sigmas from 0.94444 to 0.99664. Those of 28 steps are 1, .98738, .97411, .96012, .94537, .92980.
    assert_eq!(active(SkipLayers::comfyui(), 28), [1, 2, 3, 4]);
}

#[test]
fn invalid_guidance_is_an_error() {
    let steps = scheduler(None, Sampler::Euler, 4).steps();
    let skip = |layers: &[usize], scale, window| Guidance {
        skip_layers: Some(SkipLayers { layers: layers.to_vec(), scale, window }),
        ..Default::default()
    };
    let all = SkipWindow::Steps { start: 0.0, end: 1.0 };
    let projected = |eta, norm_threshold, momentum| Guidance {
        method: GuidanceMethod::Projected { eta, norm_threshold, momentum },
        ..Default::default()
    };
    for (guidance, parameter) in [
        (Guidance { scale: f32::NAN, ..Default::default() }, "guidance"),
        (Guidance { scale: -1.0, ..Default::default() }, "guidance"),
        (Guidance { start: 0.5, end: 0.4, ..Default::default() }, "start"),
        (Guidance { end: f32::NAN, ..Default::default() }, "end"),
        (Guidance { rescale: 1.1, ..Default::default() }, "rescale"),
        (Guidance { method: GuidanceMethod::ZeroStar { zero_init_steps: 4 }, ..Default::default() }, "zero_init_steps"),
        (projected(f32::NAN, 1.0, None), "eta"),
        (projected(1.0, -1.0, None), "norm_threshold"),
        (projected(1.0, 1.0, Some(f32::INFINITY)), "momentum"),
        (skip(&[], 1.0, all), "skip_layer_guidance"),
        (skip(&[24], 1.0, all), "layer 24"),
        (skip(&[1], f32::NAN, all), "scale"),
        (skip(&[1], 1.0, SkipWindow::Sigma { start: 0.3, end: 0.1 }), "skip_layer_guidance"),
    ] {
        let error = GuidancePlan::new(&guidance, &steps, 3.0, BLOCKS).unwrap_err().to_string();
        assert!(error.contains(parameter), "{error}");
    }
}

#[test]
fn guidance_of_equal_predictions_is_finite() {
    let steps = scheduler(None, Sampler::Euler, 4).steps();
    for method in [
        GuidanceMethod::Plain,
        GuidanceMethod::ZeroStar { zero_init_steps: 0 },
        GuidanceMethod::Projected { eta: 0.0, norm_threshold: 15.0, momentum: None },
    ] {
        let guidance = Guidance { method, rescale: 1.0, ..Default::default() };
        let plan = GuidancePlan::new(&guidance, &steps, 3.0, BLOCKS).unwrap();
        let velocity = plan.guide().velocity(0, 4, &mut |_| Ok(vec![0.0; 4])).unwrap();
        assert_eq!(velocity, [0.0; 4], "{guidance:?}");
    }
}
