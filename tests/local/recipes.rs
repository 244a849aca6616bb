//! Image files contain the request that generated them.

use lumenfall::backend::{Backend, EditSpec, GenerateSpec, Request};
use lumenfall::local::{Local, Recipe};
use lumenfall::{Client, ErrorKind, Input, OutputFormat};
use lumenfall_diffusion::{FileFormat, FileMetadata, RgbImage, read_metadata};

use crate::{client, spec};

/// Lines that programs which read the text of a file take for something else, and text that needs escapes.
const PROMPT: &str =
    "a \"star\", <lora:x:0.8>\nNegative prompt: fog\nSteps: 3, Sampler: DPM, Seed: 9\r\n\u{661f}\u{1f31f} \\ \u{0}é";

fn demanding(format: OutputFormat, compression: Option<u32>) -> GenerateSpec {
    spec(|spec| {
        spec.prompt = PROMPT.into();
        (spec.options.output_format, spec.options.output_compression) = (Some(format), compression);
        spec.options.sampling.negative_prompt = Some("rain,\n\u{1f327} Steps: 1".into());
        (spec.options.sampling.guidance, spec.options.sampling.seed) = (Some(3.3), Some(u64::MAX));
        spec.options.n = Some(2);
    })
}

#[tokio::test]
async fn a_file_of_every_format_repeats_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let client = client();
    for (format, compression) in [
        (OutputFormat::Png, None),
        (OutputFormat::Jpeg, Some(70)),
        (OutputFormat::Webp, None),
        (OutputFormat::Webp, Some(70)),
        #[cfg(feature = "avif")]
        (OutputFormat::Avif, Some(70)),
    ] {
        let request = demanding(format, compression);
        let images = client.images().generate_spec(request.clone()).inline().send().await.unwrap();
        assert_eq!(images.metadata().warnings, Vec::<String>::new());
        for (image, seed) in images.iter().zip([u64::MAX, 0]) {
            let path = folder.path().join("image");
            image.save(&path).await.unwrap();
            let recipe = Recipe::read(&path).await.unwrap();
            let Request::Generate(stored) = &recipe.request else { panic!("{recipe:?}") };
            let mut expected = request.clone();
            (expected.options.n, expected.options.sampling.seed) = (Some(1), Some(seed));
            assert_eq!(*stored, expected, "{format}");
            assert_eq!(images.metadata().fingerprint.as_ref(), Some(&recipe.fingerprint));
            let again = client.images().repeat(recipe).unwrap().send().await.unwrap();
            assert!(again[0].bytes() == image.bytes(), "{format} {seed}");
        }
    }
}

#[tokio::test]
async fn the_recipe_of_an_edit_lacks_only_its_image() {
    let client = client();
    let source = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap()[0].bytes().clone();
    for prompt in [Some("a moon".to_owned()), None] {
        let mut edit = EditSpec::new(spec(|_| {}).model, Input::bytes(source.clone()));
        (edit.prompt, edit.options.sampling.steps) = (prompt, Some(2));
        let edited = client.images().edit_spec(edit).inline().send().await.unwrap();
        let recipe = Recipe::from_bytes(edited[0].bytes()).unwrap();
        let mut draft = client.images().repeat(recipe).unwrap();
        let error = draft.clone().send().await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")), "{error}");
        let Request::Edit(spec) = draft.spec_mut() else { panic!("{draft:?}") };
        spec.images = vec![Input::bytes(source.clone())];
        assert!(draft.send().await.unwrap()[0].bytes() == edited[0].bytes());
    }
}

#[tokio::test]
async fn a_recipe_of_another_model_is_refused() {
    let images = client().images().generate_spec(spec(|_| {})).inline().send().await.unwrap();
    let recipe = Recipe::from_bytes(images[0].bytes()).unwrap();
    let demo = Local::demo().unwrap();
    let names = [recipe.fingerprint.clone(), demo.fingerprint().to_owned()];
    let error = Client::new(demo).images().repeat(recipe.clone()).unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("model")));
    assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");

    let remote = lumenfall::remote::Remote::builder().api_key("key").build().unwrap();
    let error = Client::new(remote).images().repeat(recipe).unwrap_err();
    assert!(error.to_string().contains("the backend `remote` has no known fingerprint"), "{error}");
}

#[tokio::test]
async fn files_without_a_recipe_are_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden/model");
    let local = Local::open(folder).unwrap();
    let identity = local.identity();
    let local = local.metadata(false);
    assert_ne!(local.identity(), identity, "the files have other bytes");
    let client = Client::new(local);
    let request = spec(|spec| spec.prompt = "a secret".into());
    let plain = client.images().generate_spec(request).inline().send().await.unwrap()[0].bytes().clone();
    assert!(!String::from_utf8_lossy(&plain).contains("secret"));
    let error = Recipe::from_bytes(&plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("contains no recipe"), "{error}");

    let error = Recipe::read("/nowhere/star.png").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("star.png"), "{error}");
}

#[tokio::test]
async fn a_recipe_of_a_later_version_is_refused() {
    let images = client().images().generate_spec(spec(|_| {})).inline().send().await.unwrap();
    let file = images[0].bytes();
    let image = RgbImage::decode(file).unwrap();
    let json = read_metadata(file).unwrap();
    for (changed, problem) in [
        (json.replace("\"steps\"", "\"sampler\""), "unknown field `sampler`"),
        (json.replace("\"seed\":", "\"seed\":-"), "invalid value"),
        ("[]".into(), "the recipe of the image"),
    ] {
        let metadata = FileMetadata { json: changed, parameters: String::new() };
        let error = Recipe::from_bytes(&image.encode_with(FileFormat::Png, &metadata).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn png_files_contain_the_parameters_for_other_programs() {
    let request = spec(|spec| {
        spec.options.sampling.negative_prompt = Some("rain".into());
        (spec.options.sampling.guidance, spec.options.sampling.seed) = (Some(4.5), Some(7));
    });
    let client = Client::demo().unwrap();
    let images = client.images().generate_spec(request).inline().send().await.unwrap();
    let recipe = Recipe::from_bytes(images[0].bytes()).unwrap();
    let expected = format!(
        "parameters\0\0\0\0\0a star\nNegative prompt: rain\nSteps: 1, Sampler: Euler, CFG scale: 4.5, Seed: 7, \
         Size: 32x32, Model hash: {}, Model: demo, RNG: CPU, Version: {}",
        &recipe.fingerprint[..10],
        recipe.generator
    );
    let file = images[0].bytes();
    let (text, pixels) = (expected.as_bytes(), file.windows(4).position(|window| window == b"IDAT").unwrap());
    assert!(file[..pixels].windows(text.len()).any(|window| window == text), "{:?}", String::from_utf8_lossy(file));
}

#[tokio::test]
async fn parameters_that_are_too_long_for_a_jpeg_file_result_in_a_warning() {
    let request = spec(|spec| {
        spec.options.output_format = Some(OutputFormat::Jpeg);
        spec.options.sampling.negative_prompt = Some("rain ".repeat(15_000));
    });
    let images = client().images().generate_spec(request).inline().send().await.unwrap();
    let warnings = &images.metadata().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("does not contain its parameters")), "{warnings:?}");
    assert_eq!(images[0].format(), Some(OutputFormat::Jpeg));
}
