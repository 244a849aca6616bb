//! Tests the code that is generated from other schemas: it compiles without pedantic warnings and
//! enforces the rules of its schema.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "the tests use some of each model")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[rustfmt::skip]
#[warn(clippy::pedantic)]
#[path = "../crates/lumenfall-codegen/tests/golden/dreamer.rs"]
mod dreamer;
#[rustfmt::skip]
#[warn(clippy::pedantic)]
#[path = "../crates/lumenfall-codegen/tests/golden/keywords.rs"]
mod keywords;
#[rustfmt::skip]
#[warn(clippy::pedantic)]
#[path = "../crates/lumenfall-codegen/tests/golden/sketcher.rs"]
mod sketcher;
#[rustfmt::skip]
#[warn(clippy::pedantic)]
#[path = "../crates/lumenfall-codegen/tests/golden/upscaler.rs"]
mod upscaler;

use lumenfall::remote::Remote;
use lumenfall::{Client, ErrorKind, Input, OutputFormat, literal};

fn client() -> Client {
    Client::new(Remote::builder().api_key("lmnfl_test.secret").build().unwrap())
}

#[test]
fn values_of_an_enum_are_sent_as_text() {
    let images = client().images_for::<sketcher::Sketcher1>();
    let spec = images
        .clone()
        .generate("a lighthouse", sketcher::parameters::Style::Value3dPrint)
        .paper(sketcher::parameters::Paper::Kraft)
        .tiling(true)
        .pin(sketcher::providers::InHouse)
        .into_draft()
        .into_spec();
    assert_eq!(spec.options.extra["style"], "3d-print");
    assert_eq!(spec.options.extra["paper"], "kraft");
    assert_eq!(spec.options.extra["tiling"], true);
    assert_eq!(spec.options.provider.as_deref(), Some("in-house"));
    sketcher::SCHEMA.check(&spec).unwrap();

    let (style, paper) = ("ink".parse().unwrap(), "white".parse().unwrap());
    let mut draft = images.generate("a lighthouse", style).paper(paper).into_draft();
    assert_eq!(draft.spec().options.extra["style"], "ink");
    draft.set("paper", sketcher::parameters::Paper::Kraft).unwrap();
    assert_eq!(draft.spec().options.extra["paper"], "kraft");
}

#[test]
fn the_enum_of_a_parameter_converts_from_and_to_its_names() {
    use sketcher::parameters::Style;
    assert_eq!(Style::ALL, [Style::Pencil, Style::Ink, Style::Value3dPrint]);
    for (style, name) in Style::ALL.iter().zip(["pencil", "ink", "3d-print"]) {
        assert_eq!((style.as_str(), style.to_string(), name.parse().unwrap()), (name, name.to_owned(), *style));
        let json = serde_json::to_string(style).unwrap();
        assert_eq!((json.as_str(), serde_json::from_str(&json).unwrap()), (&*format!("{name:?}"), *style));
    }
    let error = "oil".parse::<Style>().unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("style")));
    let text = "`style` is \"oil\"; Sketcher {1} supports pencil, ink and 3d-print";
    assert_eq!(error.to_string(), text);
    assert!(serde_json::from_str::<Style>(r#""oil""#).unwrap_err().to_string().starts_with(text));
    assert_eq!(OutputFormat::from(upscaler::parameters::OutputFormat::Webp), OutputFormat::Webp);
}

#[test]
fn sampling_controls_in_the_schema_are_checked_by_the_schema() {
    use dreamer::parameters::{GuidanceScale, Shift};
    let images = client().images_for::<dreamer::Dreamer21>();
    let mut spec = images
        .generate("a lighthouse")
        .negative_prompt("fog")
        .seed(literal!(dreamer::parameters::Seed, 4_294_967_295))
        .guidance_scale(literal!(GuidanceScale, 1.5))
        .shift(literal!(Shift, -0.5))
        .steps(28)
        .into_draft()
        .into_spec();
    assert_eq!(spec.options.sampling.seed, Some(4_294_967_295));
    dreamer::SCHEMA.check(&spec).unwrap();

    spec.options.sampling.guidance = Some(1.4);
    let error = dreamer::SCHEMA.check(&spec).unwrap_err();
    assert!(error.to_string().starts_with("`guidance_scale` is 1.4; "), "{error}");
    assert_eq!(GuidanceScale::new(20.5).unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn required_numbers_and_supported_formats_are_checked() {
    let images = client().images_for::<upscaler::Upscaler>();
    let factor = upscaler::parameters::ScaleFactor::new(3).unwrap();
    let edit = images.edit(Input::path("small.png"), factor);
    assert_eq!(edit.clone().try_output_format(OutputFormat::Gif).unwrap_err().parameter(), Some("output_format"));
    let spec = edit.try_output_format(OutputFormat::Webp).unwrap().into_draft().into_spec();
    assert_eq!(spec.options.extra["scale_factor"], 3);
    assert!(upscaler::parameters::ScaleFactor::new(9).is_err());
}

#[test]
fn keywords_can_be_names_of_parameters_and_values() {
    let images = client().images_for::<keywords::Gen>();
    let spec = images
        .clone()
        .generate("a lighthouse", true, keywords::parameters::Type::ValueSelf)
        .r#try(keywords::r#try::Twice)
        .r#async("later")
        .r#gen(literal!(keywords::parameters::Gen, 3))
        .into_draft()
        .into_spec();
    assert_eq!((&spec.options.extra["type"], &spec.options.extra["gen"]), (&"self".into(), &3.into()));
    assert_eq!((&spec.options.extra["try"], &spec.options.extra["draft"]), (&"twice".into(), &true.into()));
    keywords::SCHEMA.check(&spec).unwrap();
    let variation = images.generate("a lighthouse", false, keywords::parameters::Type::Async).try_match(0.5).unwrap();
    assert_eq!(variation.into_draft().into_spec().options.extra["match"], 0.5);
}

#[test]
fn integers_with_an_unsigned_range_are_u32() {
    let _: u32 = keywords::parameters::Gen::new(2_u32).unwrap().get();
    let _: u32 = literal!(upscaler::parameters::ScaleFactor, 4).get();
    assert_eq!(keywords::parameters::Gen::new(4).unwrap_err().parameter(), Some("gen"));
}

#[test]
fn the_image_of_an_edit_can_be_optional() {
    let images = client().images_for::<keywords::Gen>();
    let edit = images.edit("a lighthouse", keywords::parameters::Type::Option);
    let mut spec = edit.clone().into_draft().into_spec();
    assert!(spec.images.is_empty());
    keywords::SCHEMA.check(&spec).unwrap();
    spec.prompt = None;
    assert_eq!(keywords::SCHEMA.check(&spec).unwrap_err().parameter(), Some("prompt"));
    let spec = edit.image(Input::path("small.png")).draft(true).into_draft().into_spec();
    assert_eq!(spec.images.len(), 1);
    keywords::SCHEMA.check(&spec).unwrap();
}

#[tokio::test]
async fn a_request_for_another_model_is_rejected() {
    let spec = lumenfall::backend::GenerateSpec::new("dreamer-2.1", "a lighthouse");
    let error = client().images().generate_spec(spec).send().await.unwrap_err();
    assert_eq!(error.parameter(), Some("model"));
}
