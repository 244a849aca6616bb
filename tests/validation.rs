//! Compares the checks at run time with an independent implementation of the schema's rules, for random requests.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use lumenfall::backend::{EditSpec, GenerateSpec, Options};
use lumenfall::images::typed::{Mode, Spec, View};
use lumenfall::remote::Remote;
use lumenfall::stable_diffusion_3_5_medium::{Builder, Edit, Generate, SCHEMA};
use lumenfall::{Client, Error, ErrorKind, Input, OutputFormat, Size, Webp};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

const MODEL: &str = "stable-diffusion-3.5-medium";

/// Pairs of a parameter and a part of the message about its value.
type Violations = BTreeSet<(String, String)>;

/// Returns all violations of a request, computed from the schema's JSON.
fn violations(spec: &impl Spec) -> Violations {
    let View { mode, prompt, image, mask, options, .. } = spec.view();
    let mode = if mode == Mode::ImageEdit { "image_edit" } else { "text_to_image" };
    let Value::Object(mut request) = serde_json::to_value(options).unwrap() else { unreachable!() };
    request.extend([
        ("prompt".to_string(), json!(prompt)),
        ("image".to_string(), json!(image.then_some(true))),
        ("mask".to_string(), json!(mask.then_some(true))),
    ]);
    request.retain(|_, value| !value.is_null());

    let schema: Value = serde_json::from_str(include_str!("../schemas/stable-diffusion-3.5-medium.json")).unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut violations = BTreeSet::new();
    let mut violates = |parameter: &str, message: &str, is_violated: bool| {
        violations.extend(is_violated.then(|| (parameter.to_string(), message.to_string())));
    };
    for parameter in list(&schema["parameters"]) {
        let name = parameter["name"].as_str().unwrap();
        let need = parameter["modes"][mode].as_str();
        let Some(value) = request.get(name) else {
            violates(name, "is missing", need == Some("required"));
            continue;
        };
        violates(name, "is not a parameter of", need.is_none());
        let supports = format!("is {value}; Stable Diffusion 3.5 Medium supports");
        if let Some(text) = value.as_str() {
            let max_length = parameter["max_length"].as_u64().unwrap_or(u64::MAX);
            violates(name, "is blank", need == Some("required") && text.trim().is_empty());
            violates(name, "characters; ", text.chars().count() as u64 > max_length);
            violates(name, &supports, parameter["enum"].is_array() && !list(&parameter["enum"]).contains(value));
            if let Some((width, height)) = text.split_once('x').filter(|_| parameter["format"] == "size") {
                let (width, height): (u64, u64) = (width.parse().unwrap(), height.parse().unwrap());
                let max = |side: &str| schema["max_resolution"][side].as_u64().unwrap();
                violates(name, "with no side of 0", width == 0 || height == 0);
                violates(name, "supports at most", width > max("width") || height > max("height"));
            }
        }
        let bound = |key: &str, default| parameter[key].as_u64().unwrap_or(default);
        let is_outside = |number| number < bound("minimum", 0) || number > bound("maximum", u64::MAX);
        violates(name, &supports, value.as_u64().is_some_and(is_outside));
        for other in list(&parameter["overrides"]) {
            let other = other.as_str().unwrap();
            violates(name, &format!("cannot be combined with `{other}`"), request.contains_key(other));
        }
        for (other, values) in parameter["requires"].as_object().into_iter().flatten() {
            let is_met = request.get(other).is_some_and(|value| list(values).contains(value));
            violates(name, &format!("requires `{other}` to be"), !is_met);
        }
    }
    let runs = |provider: &Value, slug| provider["slug"] == slug && list(&provider["modes"]).contains(&json!(mode));
    let is_unable = |slug| !list(&schema["providers"]).iter().any(|provider| runs(provider, slug));
    violates("provider", "does not offer", options.provider.as_deref().is_some_and(is_unable));
    violations
}

/// Checks that `result` is what the schema says about `spec`: the request is accepted if it violates no rule, and the
/// error describes a violation otherwise.
fn agree(spec: &impl Spec, result: Result<(), &Error>) -> Result<(), TestCaseError> {
    let violations = violations(spec);
    match (SCHEMA.check(spec), result) {
        (Ok(()), Ok(())) => prop_assert!(violations.is_empty(), "accepted, but violates {violations:?}"),
        (Err(checked), Err(error)) => {
            let message = error.to_string();
            let describes = |(parameter, part): &(String, String)| {
                error.parameter() == Some(parameter) && message.contains(part.as_str())
            };
            prop_assert!(violations.iter().any(describes), "{message:?} is not in {violations:?}");
            prop_assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            prop_assert_eq!((checked.kind(), checked.parameter()), (error.kind(), error.parameter()));
            prop_assert_eq!(checked.to_string(), message);
        }
        (checked, result) => prop_assert!(false, "the schema says {checked:?}, the result is {result:?}"),
    }
    Ok(())
}

/// Generates options that violate each rule in some cases and violate no rule in others.
fn options() -> impl Strategy<Value = Options> {
    let text = |values: &'static [&'static str]| weighted(0.3, select(values));
    let side = || select(&[0, 1, 512, 1414, 1415, 4000][..]);
    let pixels = (side(), side()).prop_map(|(width, height)| Size::Pixels { width, height });
    let size = prop_oneof![3 => pixels, 1 => Just(Size::Ratio("16:9".parse().unwrap()))];
    (
        weighted(0.3, size),
        text(&["fal", "replicate", "nobody"]),
        text(&["1:1", "16:9", "30:29"]),
        text(&["1K", "2K", "9K"]),
        text(&["url", "b64_json"]),
        weighted(0.5, select(&["png", "jpeg", "gif", "webp", "avif"][..])),
        weighted(0.3, prop_oneof![0u32..=100, 99u32..103]),
        weighted(0.4, prop_oneof![1u32..=10, 0u32..13]),
    )
        .prop_map(|(size, provider, ratio, resolution, response_format, output_format, output_compression, n)| {
            let options = json!({
                "provider": provider, "aspect_ratio": ratio, "resolution": resolution, "response_format": response_format,
                "output_format": output_format, "output_compression": output_compression, "n": n
            });
            let mut options: Options = serde_json::from_value(options).unwrap();
            options.size = size;
            options
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

static CLIENT: LazyLock<Client> =
    LazyLock::new(|| Client::new(Remote::builder().api_key("lmnfl_key").build().unwrap()));

fn generate() -> Generate {
    CLIENT.images().generate("a lighthouse")
}

fn edit() -> Edit {
    CLIENT.images().edit(Input::path("source.png"))
}

/// Calls the `try_…` setter of each parameter that is set in `options`, and compares the result with the schema.
fn tried_values_agree<S: Spec>(start: fn() -> Builder<S>, options: &Options) -> Result<(), TestCaseError> {
    macro_rules! tried {
        ($($parameter:ident: $setter:ident),*) => {
            [$(options.$parameter.map(|value| {
                let mut options = Options::default();
                options.$parameter = Some(value);
                (options, start().$setter(value).map(|builder| builder.into_draft().into_spec()))
            })),*]
        };
    }
    let tried = tried![
        size: try_size, aspect_ratio: try_aspect_ratio, resolution: try_resolution, output_format: try_output_format,
        n: try_n
    ];
    let compressed = options.output_compression.map(|level| {
        let options = Options::default().with_output_format(OutputFormat::Webp).with_output_compression(level);
        (
            options,
            start().output_format(Webp).try_output_compression(level).map(|builder| builder.into_draft().into_spec()),
        )
    });
    for (options, result) in tried.into_iter().chain([compressed]).flatten() {
        let mut spec = start().into_draft().into_spec();
        *spec.options_mut() = options;
        agree(&spec, result.as_ref().map(drop))?;
        if let Ok(result) = result {
            prop_assert_eq!(result.view().options, spec.view().options);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_to_generate_are_checked_by_the_schema(prompt in prompt(), options in options()) {
        let spec = GenerateSpec::new(MODEL, prompt).with_options(options);
        agree(&spec, spec.validate().as_ref().copied())?;
    }

    #[test]
    fn requests_to_edit_are_checked_by_the_schema(
        prompt in proptest::option::of(prompt()),
        images in 0usize..3,
        mask in any::<bool>(),
        options in options(),
    ) {
        let mut spec = EditSpec::new(MODEL, vec![Input::path("source.png"); images]);
        (spec.prompt, spec.options) = (prompt, options);
        spec.mask = mask.then(|| Input::path("mask.png"));
        agree(&spec, spec.validate().as_ref().copied())?;
    }

    #[test]
    fn values_known_only_at_run_time_are_checked_by_the_schema(prompt in prompt(), options in options()) {
        tried_values_agree(generate, &options)?;
        tried_values_agree(edit, &options)?;
        let spec = edit().into_draft().into_spec().with_prompt(prompt.clone());
        let result = edit().try_prompt(prompt).map(|edit| edit.into_draft().into_spec());
        agree(&spec, result.as_ref().map(drop))?;
        if let Ok(result) = result {
            prop_assert_eq!(result.prompt, spec.prompt);
        }
    }
}

#[test]
fn rules_that_the_schema_does_not_contain_are_checked() {
    let generate = |change: fn(&mut Options)| {
        let mut spec = GenerateSpec::new(MODEL, "a lighthouse");
        change(&mut spec.options);
        spec.validate()
    };
    let edit = |strength: f32| {
        let mut spec = EditSpec::new(MODEL, Input::path("source.png"));
        spec.options.sampling.strength = Some(strength);
        spec.validate()
    };
    let rejected: [(Result<(), Error>, &str); 9] = [
        (generate(|options| options.sampling.steps = Some(0)), "steps"),
        (generate(|options| options.sampling.guidance = Some(f32::NAN)), "guidance"),
        (generate(|options| options.sampling.guidance = Some(-1.0)), "guidance"),
        (generate(|options| options.sampling.strength = Some(0.5)), "strength"),
        (generate(|options| drop(options.extra.insert("size".into(), "1x1".into()))), "size"),
        (GenerateSpec::new(MODEL, "\u{3000}").validate(), "prompt"),
        (edit(0.0), "strength"),
        (edit(1.01), "strength"),
        (edit(f32::NAN), "strength"),
    ];
    for (result, parameter) in rejected {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some(parameter)), "{error}");
    }
    generate(|options| drop(options.extra.insert("clip_skip".into(), 2.into()))).unwrap();
    edit(0.01).and(edit(1.0)).unwrap();
}
