//! The run-time checks against an independent reading of the schema's JSON, over random specs.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use lumenfall::backend::{EditSpec, GenerateSpec, Options};
use lumenfall::images::typed::{Rule, Violation};
use lumenfall::stable_diffusion_3_5_medium::{Edit, Generate, SCHEMA};
use lumenfall::{AspectRatio, Client, Error, ErrorKind, Input, OutputFormat, Resolution, ResponseFormat, Size, Webp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// Parameters, each with a rule that it breaks.
type Broken = BTreeSet<(String, String)>;

/// Every rule that a request breaks, read straight from the schema's JSON.
fn interpret(mode: &str, request: &Map<String, Value>, provider: Option<&str>) -> Broken {
    let schema: Value = serde_json::from_str(include_str!("../schemas/stable-diffusion-3.5-medium.json")).unwrap();
    let mut broken = BTreeSet::new();
    let mut break_rule = |parameter: &str, rule: Rule| broken.insert((parameter.to_string(), format!("{rule:?}")));
    for parameter in schema["parameters"].as_array().unwrap() {
        let name = parameter["name"].as_str().unwrap();
        let need = parameter["modes"][mode].as_str();
        let Some(value) = request.get(name) else {
            if need == Some("required") {
                break_rule(name, Rule::Required);
            }
            continue;
        };
        if need.is_none() {
            break_rule(name, Rule::Mode);
        }
        if let Some(text) = value.as_str() {
            if need == Some("required") && text.trim().is_empty() {
                break_rule(name, Rule::Required);
            }
            if parameter["max_length"].as_u64().is_some_and(|max| text.chars().count() as u64 > max) {
                break_rule(name, Rule::Length);
            }
            if parameter["enum"].as_array().is_some_and(|values| !values.contains(value)) {
                break_rule(name, Rule::Choice);
            }
            if parameter["format"] == "size"
                && let Some((width, height)) = text.split_once('x')
            {
                let (width, height): (u64, u64) = (width.parse().unwrap(), height.parse().unwrap());
                let max = &schema["max_resolution"];
                if width == 0 || height == 0 {
                    break_rule(name, Rule::Format);
                }
                if width > max["width"].as_u64().unwrap() || height > max["height"].as_u64().unwrap() {
                    break_rule(name, Rule::MaxSize);
                }
            }
        }
        if let Some(number) = value.as_u64() {
            let low = parameter["minimum"].as_u64().is_some_and(|minimum| number < minimum);
            let high = parameter["maximum"].as_u64().is_some_and(|maximum| number > maximum);
            if low || high {
                break_rule(name, Rule::Range);
            }
        }
        for other in parameter["overrides"].as_array().into_iter().flatten() {
            if request.contains_key(other.as_str().unwrap()) {
                break_rule(name, Rule::Exclusive);
            }
        }
        for (other, values) in parameter["requires"].as_object().into_iter().flatten() {
            if !request.get(other).is_some_and(|value| values.as_array().unwrap().contains(value)) {
                break_rule(name, Rule::Requires);
            }
        }
    }
    if let Some(slug) = provider {
        let providers = schema["providers"].as_array().unwrap();
        let able = |provider: &&Value| provider["modes"].as_array().unwrap().contains(&json!(mode));
        if !providers.iter().filter(able).any(|provider| provider["slug"] == slug) {
            break_rule("provider", Rule::Provider);
        }
    }
    broken
}

fn broken_by_generation(spec: &GenerateSpec) -> Broken {
    let mut wire = request(&spec.options);
    if !spec.prompt.is_empty() {
        wire.insert("prompt".into(), spec.prompt.clone().into());
    }
    interpret("text_to_image", &wire, spec.options.provider.as_deref())
}

fn broken_by_edit(spec: &EditSpec) -> Broken {
    let mut wire = request(&spec.options);
    wire.extend(spec.prompt.clone().map(|prompt| ("prompt".to_string(), prompt.into())));
    wire.extend((!spec.images.is_empty()).then(|| ("image".to_string(), Value::Bool(true))));
    wire.extend(spec.mask.is_some().then(|| ("mask".to_string(), Value::Bool(true))));
    interpret("image_edit", &wire, spec.options.provider.as_deref())
}

fn request(options: &Options) -> Map<String, Value> {
    let Value::Object(mut request) = serde_json::to_value(options).unwrap() else { unreachable!() };
    request.retain(|_, value| !value.is_null());
    request
}

/// What draws a value often enough to meet every rule, and leaves it out often enough to pass.
fn options() -> impl Strategy<Value = Options> {
    let side = prop_oneof![Just(0u32), Just(1), Just(512), Just(1414), Just(1415), Just(4000)];
    let ratio = (1u32..30, 1u32..30).prop_map(|(width, height)| AspectRatio::new(width, height).unwrap());
    let size = prop_oneof![
        3 => (side.clone(), side).prop_map(|(width, height)| Size::Pixels { width, height }),
        1 => ratio.clone().prop_map(Size::Ratio),
    ];
    let resolution = (1u32..9).prop_map(|kilopixels| Resolution::new(kilopixels).unwrap());
    const FORMATS: [OutputFormat; 5] =
        [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Gif, OutputFormat::Webp, OutputFormat::Avif];
    let response = prop_oneof![Just(ResponseFormat::Url), Just(ResponseFormat::B64Json)];
    let provider = prop_oneof![Just("fal"), Just("replicate"), Just("nobody")].prop_map(String::from);
    (
        proptest::option::weighted(0.2, provider),
        proptest::option::weighted(0.3, size),
        proptest::option::weighted(0.2, ratio),
        proptest::option::weighted(0.2, resolution),
        proptest::option::of(response),
        proptest::option::of(proptest::sample::select(&FORMATS[..])),
        proptest::option::weighted(0.3, prop_oneof![0u32..=100, 99u32..103]),
        proptest::option::weighted(0.4, prop_oneof![1u32..=10, 0u32..13]),
    )
        .prop_map(|(provider, size, aspect_ratio, resolution, response_format, output_format, compression, n)| {
            Options {
                provider,
                size,
                aspect_ratio,
                resolution,
                response_format,
                output_format,
                output_compression: compression,
                n,
                ..Options::default()
            }
        })
}

fn prompt() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("a lighthouse".to_string()),
        1 => Just(String::new()),
        1 => Just(" \t\n".to_string()),
        1 => (998usize..1003).prop_map(|length| "ü".repeat(length)),
    ]
}

static CLIENT: LazyLock<Client> = LazyLock::new(|| Client::builder().api_key("lmnfl_key").build().unwrap());

fn generation() -> Generate {
    CLIENT.images().generate("a lighthouse")
}

fn edit() -> Edit {
    CLIENT.images().edit(Input::path("source.png"))
}

/// Each value of `$options` that has a `try_*`: the options that give it alone, and what the builder makes of it.
macro_rules! tried {
    ($start:expr, $options:expr) => {{
        let Options { size, aspect_ratio, resolution, output_compression, n, .. } = $options;
        let none = Options::default;
        [
            size.map(|size| {
                (Options { size: Some(size), ..none() }, $start.try_size(size).map(|made| made.into_spec()))
            }),
            aspect_ratio.map(|ratio| {
                let options = Options { aspect_ratio: Some(ratio), ..none() };
                (options, $start.try_aspect_ratio(ratio).map(|made| made.into_spec()))
            }),
            resolution.map(|tier| {
                let options = Options { resolution: Some(tier), ..none() };
                (options, $start.try_resolution(tier).map(|made| made.into_spec()))
            }),
            output_compression.map(|level| {
                let webp = Some(OutputFormat::Webp);
                let options = Options { output_format: webp, output_compression: Some(level), ..none() };
                let tried = $start.output_format(Webp).try_output_compression(level);
                (options, tried.map(|made| made.into_spec()))
            }),
            n.map(|n| (Options { n: Some(n), ..none() }, $start.try_n(n).map(|made| made.into_spec()))),
        ]
        .into_iter()
        .flatten()
    }};
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generate_specs_get_the_verdict_of_the_schema(prompt in prompt(), options in options()) {
        let spec = GenerateSpec { model: MODEL.into(), prompt, options };
        agree(SCHEMA.check_generate(&spec), spec.validate().as_ref().err(), &broken_by_generation(&spec))?;
    }

    #[test]
    fn edit_specs_get_the_verdict_of_the_schema(
        prompt in proptest::option::of(prompt()),
        images in 0usize..3,
        mask in any::<bool>(),
        options in options(),
    ) {
        let mut spec = EditSpec::new(MODEL, vec![Input::path("source.png"); images]);
        (spec.prompt, spec.options) = (prompt, options);
        spec.mask = mask.then(|| Input::path("mask.png"));
        agree(SCHEMA.check_edit(&spec), spec.validate().as_ref().err(), &broken_by_edit(&spec))?;
    }

    #[test]
    fn values_tried_on_a_builder_get_the_verdict_of_the_schema(prompt in prompt(), options in options()) {
        for (options, tried) in tried!(generation(), options) {
            let spec = GenerateSpec { options, ..generation().into_spec() };
            agree(SCHEMA.check_generate(&spec), tried.as_ref().err(), &broken_by_generation(&spec))?;
            if let Ok(made) = tried {
                prop_assert_eq!(made, spec);
            }
        }
        for (options, tried) in tried!(edit(), options) {
            let spec = EditSpec { options, ..edit().into_spec() };
            agree(SCHEMA.check_edit(&spec), tried.as_ref().err(), &broken_by_edit(&spec))?;
            if let Ok(made) = tried {
                prop_assert_eq!(made.options, spec.options);
            }
        }
        let spec = EditSpec { prompt: Some(prompt.clone()), ..edit().into_spec() };
        let tried = edit().try_prompt(prompt).map(Edit::into_spec);
        agree(SCHEMA.check_edit(&spec), tried.as_ref().err(), &broken_by_edit(&spec))?;
        if let Ok(made) = tried {
            prop_assert_eq!(made.prompt, spec.prompt);
        }
    }
}

/// Both refuse or both accept, and a rule that is said to be broken is broken.
fn agree(verdict: Result<(), Violation>, told: Option<&Error>, broken: &Broken) -> Result<(), TestCaseError> {
    match verdict {
        Ok(()) => {
            prop_assert!(broken.is_empty(), "accepted, but breaks {broken:?}");
            prop_assert!(told.is_none());
        }
        Err(violation) => {
            let named = (violation.parameter().to_string(), format!("{:?}", violation.rule()));
            prop_assert!(broken.contains(&named), "{named:?} is not among {broken:?}");
            let Some(error) = told else { return Err(TestCaseError::fail(format!("accepted, but breaks {named:?}"))) };
            prop_assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            prop_assert_eq!(error.parameter(), Some(violation.parameter()));
            prop_assert_eq!(error.to_string(), violation.to_string());
        }
    }
    Ok(())
}

#[test]
fn what_the_schema_does_not_name_is_checked_too() {
    let spec = |change: fn(&mut GenerateSpec)| {
        let mut spec = GenerateSpec::new(MODEL, "a lighthouse");
        change(&mut spec);
        spec.validate()
    };
    let cases: [(Result<(), Error>, &str); 6] = [
        (spec(|spec| spec.options.sampling.steps = Some(0)), "steps"),
        (spec(|spec| spec.options.sampling.guidance = Some(f32::NAN)), "guidance"),
        (spec(|spec| spec.options.sampling.guidance = Some(-1.0)), "guidance"),
        (spec(|spec| spec.options.sampling.strength = Some(0.5)), "strength"),
        (spec(|spec| drop(spec.options.extra.insert("size".into(), "1x1".into()))), "size"),
        (spec(|spec| spec.prompt = "\u{3000}".into()), "prompt"),
    ];
    for (verdict, parameter) in cases {
        let error = verdict.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some(parameter)), "{error}");
    }
    assert!(spec(|spec| drop(spec.options.extra.insert("clip_skip".into(), 2.into()))).is_ok());
}

#[test]
fn strength_of_an_edit_is_above_0_and_at_most_1() {
    for (strength, fine) in [(0.0, false), (0.01, true), (1.0, true), (1.01, false), (f32::NAN, false)] {
        let mut spec = EditSpec::new(MODEL, Input::path("source.png"));
        spec.options.sampling.strength = Some(strength);
        assert_eq!(spec.validate().is_ok(), fine, "{strength}");
    }
}
