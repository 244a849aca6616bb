use super::super::{
    DynamicShift, Guidance, Sampler, Schedule, ScheduleOptions, Scheduler, Shift, SkipLayers, TimeShift,
};
use super::{Golden, SAMPLERS, assert_close, configuration};
use crate::error::Error;

const SIGMA_TOLERANCE: f32 = 1e-6;
const TIMESTEP_TOLERANCE: f32 = 1e-3;

fn sigmas(scheduler: &Scheduler) -> Vec<f32> {
    let steps = scheduler.steps();
    let last = steps.last().map(|step| step.next_sigma);
    steps.iter().map(|step| step.sigma).chain(last).collect()
}

#[test]
fn schedules_equal_those_of_diffusers_and_comfyui() {
    let golden = Golden::open();
    let dynamic =
        |kind| Some(Shift::Dynamic(DynamicShift { mu: Some(0.83), time_shift_type: kind, ..Default::default() }));
    for (name, schedule, shift, shift_terminal) in [
        ("shifted", Schedule::Shifted, None, None),
        ("karras", Schedule::Karras, None, None),
        ("exponential", Schedule::Exponential, None, None),
        ("beta", Schedule::Beta, None, None),
        ("sgm_uniform", Schedule::SgmUniform, None, None),
        ("simple", Schedule::Simple, None, None),
        ("dpm_solver", Schedule::DpmSolver, None, None),
        ("uni_pc", Schedule::UniPc, None, None),
        ("terminal", Schedule::Shifted, None, Some(0.1)),
        ("terminal_karras", Schedule::Karras, None, Some(0.1)),
        ("dynamic_exponential", Schedule::Shifted, dynamic(TimeShift::Exponential), None),
        ("dynamic_linear", Schedule::Shifted, dynamic(TimeShift::Linear), None),
        ("dpm_solver_dynamic", Schedule::DpmSolver, dynamic(TimeShift::Exponential), None),
        ("uni_pc_dynamic", Schedule::UniPc, dynamic(TimeShift::Exponential), None),
        ("uni_pc_terminal", Schedule::UniPc, None, Some(0.1)),
    ] {
        let options = ScheduleOptions { schedule: Some(schedule), shift, shift_terminal };
        for count in [1, 2, 8, 28] {
            let name = format!("{name}.{count}");
            let config = configuration("").unwrap();
            let scheduler = Scheduler::with_options(&config, &options, Sampler::Euler, Some(count), 0).unwrap();
            if count == 1 && shift_terminal.is_some() {
                assert_close(&sigmas(&scheduler), &[1.0, 0.0], 1.1e-6, &name);
                continue;
            }
            assert_close(&sigmas(&scheduler), golden.get(&format!("schedule.{name}")), SIGMA_TOLERANCE, &name);
            let timesteps: Vec<f32> = scheduler.steps().iter().map(|step| step.timestep).collect();
            assert_close(&timesteps, golden.get(&format!("timesteps.{name}")), TIMESTEP_TOLERANCE, &name);
        }
    }
}

#[test]
fn the_configuration_of_the_model_is_obeyed() {
    let golden = Golden::open();
    let steps = |settings: &str, tokens| {
        let config = configuration(settings).unwrap();
        let scheduler =
            Scheduler::with_options(&config, &ScheduleOptions::default(), config.sampler(), Some(8), tokens);
        sigmas(&scheduler.unwrap())
    };
    for (settings, name) in [
        (r#", "use_karras_sigmas": true"#, "karras"),
        (r#", "use_exponential_sigmas": true"#, "exponential"),
        (r#", "use_beta_sigmas": true"#, "beta"),
        (r#", "shift_terminal": 0.1"#, "terminal"),
        (r#", "shift_terminal": 0.1, "use_karras_sigmas": true"#, "terminal_karras"),
        (r#", "shift_terminal": null, "invert_sigmas": false, "use_beta_sigmas": null"#, "shifted"),
    ] {
        assert_close(&steps(settings, 0), golden.get(&format!("schedule.{name}.8")), SIGMA_TOLERANCE, settings);
    }
    // The line from 0.5 at 256 tokens to 0.9 at 1256 has the value 0.83 at 1081.
    let line = r#", "use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 1256"#;
    assert_close(&steps(line, 1081), golden.get("schedule.dynamic_exponential.8"), SIGMA_TOLERANCE, line);
    let linear = format!(r#"{line}, "time_shift_type": "linear""#);
    assert_close(&steps(&linear, 1081), golden.get("schedule.dynamic_linear.8"), SIGMA_TOLERANCE, &linear);
    assert_ne!(steps(line, 1081), steps(line, 256));

    for (settings, sampler) in [
        ("", Sampler::Euler),
        (r#", "stochastic_sampling": true"#, Sampler::Lcm),
        (r#", "_class_name": "FlowMatchEulerDiscreteScheduler""#, Sampler::Euler),
        (r#", "_class_name": "FlowMatchHeunDiscreteScheduler""#, Sampler::Heun),
        (r#", "_class_name": "FlowMatchLCMScheduler""#, Sampler::Lcm),
    ] {
        assert_eq!(configuration(settings).unwrap().sampler(), sampler, "{settings}");
    }
}

#[test]
fn unsupported_configurations_are_refused_by_name() {
    for (settings, name) in [
        (r#", "_class_name": "DDIMScheduler""#, "DDIMScheduler"),
        (r#", "num_train_timesteps": 0"#, "num_train_timesteps"),
        (r#", "num_train_timesteps": 99999999999"#, "num_train_timesteps"),
        (r#", "shift_terminal": 1.5"#, "shift_terminal"),
        (r#", "use_karras_sigmas": true, "use_beta_sigmas": true"#, "use_karras_sigmas"),
        (r#", "use_dynamic_shifting": true, "max_image_seq_len": 256"#, "max_image_seq_len"),
        (r#", "time_shift_type": "cubic""#, "cubic"),
        (r#", "invert_sigmas": true"#, "invert_sigmas"),
        (r#", "scale_factors": [0.5]"#, "scale_factors"),
    ] {
        let error = configuration(settings).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(name) && message.contains("scheduler_config.json"), "{message}");
    }
    let negative = configuration(r#", "use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": -9.0"#);
    let error = Scheduler::with_options(&negative.unwrap(), &ScheduleOptions::default(), Sampler::Euler, Some(8), 256);
    assert!(error.unwrap_err().to_string().contains("`mu`"));
}

#[test]
fn a_users_sigmas_are_not_shifted() {
    let config = configuration(r#", "shift_terminal": 0.1"#).unwrap();
    let create = |sigmas: &[f32], steps| {
        let options = ScheduleOptions { schedule: Some(Schedule::Sigmas(sigmas.to_vec())), ..Default::default() };
        Scheduler::with_options(&config, &options, Sampler::Euler, steps, 0)
    };
    let expected = create(&[1.0, 0.5, 0.25, 0.0], None).unwrap();
    assert_eq!(sigmas(&expected), [1.0, 0.5, 0.25, 0.0]);
    let timesteps: Vec<f32> = expected.steps().iter().map(|step| step.timestep).collect();
    assert_eq!(timesteps, [1000.0, 500.0, 250.0]);
    assert_eq!(create(&[1.0, 0.5, 0.25], Some(3)).unwrap(), expected);
    for invalid in [
        &[][..],
        &[0.0],
        &[f32::NAN, 0.5],
        &[1.0, f32::NAN],
        &[f32::INFINITY, 0.5],
        &[1.5, 0.5],
        &[0.5, 0.5],
        &[0.5, 0.7],
        &[0.5, 0.0, 0.0],
        &[0.5, -0.1],
    ] {
        let error = create(invalid, None).unwrap_err().to_string();
        assert!(error.starts_with("`sigmas`"), "{invalid:?}: {error}");
    }
    assert!(create(&[1.0, 0.5], Some(3)).unwrap_err().to_string().contains("2 values"));
}

#[test]
fn invalid_options_of_schedules_are_errors() {
    let config = configuration("").unwrap();
    let create = |options: &ScheduleOptions, steps| {
        Scheduler::with_options(&config, options, Sampler::Euler, steps, 4096).map_err(|error| error.to_string())
    };
    assert_eq!(create(&ScheduleOptions::default(), None).unwrap().steps().len(), 28);
    for steps in [0, 1001, u32::MAX] {
        assert!(create(&ScheduleOptions::default(), Some(steps)).unwrap_err().starts_with("`steps`"));
    }
    for shift in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        let options = ScheduleOptions { shift: Some(Shift::Fixed(shift)), ..Default::default() };
        assert!(create(&options, Some(8)).unwrap_err().starts_with("`shift`"), "{shift}");
    }
    for terminal in [0.0, 1.0, f64::NAN] {
        let options = ScheduleOptions { shift_terminal: Some(terminal), ..Default::default() };
        assert!(create(&options, Some(8)).unwrap_err().starts_with("`shift_terminal`"), "{terminal}");
    }
    for schedule in [Schedule::Karras, Schedule::Beta, Schedule::SgmUniform, Schedule::Simple, Schedule::DpmSolver] {
        let options = ScheduleOptions { schedule: Some(schedule), ..Default::default() };
        assert_eq!(create(&options, Some(1000)).unwrap().steps().len(), 1000, "{options:?}");
    }
}

#[test]
fn options_are_read_from_their_names() {
    let schedule: ScheduleOptions = serde_json::from_str(r#"{"schedule": "sgm_uniform"}"#).unwrap();
    assert_eq!(schedule.schedule, Some(Schedule::SgmUniform));
    for (name, sampler) in SAMPLERS {
        assert_eq!(serde_json::to_string(&sampler).unwrap(), format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<Sampler>(&format!("\"{name}\"")).unwrap(), sampler);
    }
    let guidance = Guidance { skip_layers: Some(SkipLayers::stability()), ..Default::default() };
    let json = serde_json::to_string(&guidance).unwrap();
    assert_eq!(serde_json::from_str::<Guidance>(&json).unwrap(), guidance);
}
