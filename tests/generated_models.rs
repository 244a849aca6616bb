//! Models that the generator made of other schemas: their code compiles and keeps their rules.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "a test uses a part of each model")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[rustfmt::skip]
#[path = "../crates/lumenfall-codegen/tests/golden/dreamer.rs"]
mod dreamer;
#[rustfmt::skip]
#[path = "../crates/lumenfall-codegen/tests/golden/sketcher.rs"]
mod sketcher;
#[rustfmt::skip]
#[path = "../crates/lumenfall-codegen/tests/golden/upscaler.rs"]
mod upscaler;

use lumenfall::images::typed::Rule;
use lumenfall::{Client, ErrorKind, Input, literal};

fn client() -> Client {
    Client::builder().api_key("lmnfl_test.secret").build().unwrap()
}

#[test]
fn text_only_model_takes_its_choices() {
    let images = client().images_for::<sketcher::Sketcher1>();
    let spec = images
        .generate("a lighthouse", sketcher::style::Value3dPrint)
        .paper(sketcher::paper::Kraft)
        .tiling(true)
        .pin(sketcher::providers::InHouse)
        .into_spec();
    assert_eq!(spec.options.extra["style"], "3d-print");
    assert_eq!(spec.options.extra["paper"], "kraft");
    assert_eq!(spec.options.extra["tiling"], true);
    assert_eq!(spec.options.provider.as_deref(), Some("in-house"));
    assert_eq!(sketcher::SCHEMA.check_generate(&spec), Ok(()));
}

#[test]
fn sampling_controls_that_the_schema_names_are_checked_by_it() {
    use dreamer::parameters::{GuidanceScale, Shift};
    let images = client().images_for::<dreamer::Dreamer21>();
    let mut spec = images
        .generate("a lighthouse")
        .negative_prompt("fog")
        .seed(literal!(dreamer::parameters::Seed, 4_294_967_295))
        .guidance_scale(literal!(GuidanceScale, 1.5))
        .shift(literal!(Shift, -0.5))
        .steps(28)
        .into_spec();
    assert_eq!(spec.options.sampling.seed, Some(4_294_967_295));
    assert_eq!(dreamer::SCHEMA.check_generate(&spec), Ok(()));

    spec.options.sampling.guidance = Some(1.4);
    let violation = dreamer::SCHEMA.check_generate(&spec).unwrap_err();
    assert_eq!((violation.parameter(), violation.rule()), ("guidance_scale", Rule::Range));
    assert_eq!(GuidanceScale::new(20.5).unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn upscaler_starts_from_its_scale_factor() {
    let images = client().images_for::<upscaler::Upscaler>();
    let factor = upscaler::parameters::ScaleFactor::new(3).unwrap();
    let spec = images.edit(Input::path("small.png"), factor).into_spec();
    assert_eq!(spec.options.extra["scale_factor"], 3);
    assert!(upscaler::parameters::ScaleFactor::new(9).is_err());
}

#[tokio::test]
async fn spec_for_another_model_is_refused() {
    let spec = lumenfall::backend::GenerateSpec::new("dreamer-2.1", "a lighthouse");
    let error = client().images().generate_spec(spec).send().await.unwrap_err();
    assert_eq!(error.parameter(), Some("model"));
}
