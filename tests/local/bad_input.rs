//! What the local backend refuses: by name, with the remedy.

use lumenfall::backend::{EditSpec, GenerateSpec};
use lumenfall::{Client, ErrorKind, Fal, Gif, Input, Replicate, Size, SkipLayerGuidance, Webp, percent, size};

use crate::client;

const MODEL: &str = "stable-diffusion-3.5-medium";

fn spec() -> GenerateSpec {
    let mut spec = GenerateSpec::new(MODEL, "a star");
    spec.options.size = Some(Size::pixels(32, 32).unwrap());
    spec.options.sampling.steps = Some(1);
    spec
}

/// The kind, the parameter and the message of a refusal.
async fn refusal(change: impl FnOnce(&mut GenerateSpec)) -> (ErrorKind, Option<String>, String) {
    let mut spec = spec();
    change(&mut spec);
    let error = client().images().generate_spec(spec).send().await.unwrap_err();
    (error.kind(), error.parameter().map(str::to_owned), error.to_string())
}

#[tokio::test]
async fn what_cannot_be_honoured_is_named_not_dropped() {
    let unsupported = |result: (ErrorKind, Option<String>, String), name: &str| {
        assert_eq!((result.0, result.1.as_deref()), (ErrorKind::Unsupported, Some(name)), "{}", result.2);
        assert!(result.2.contains(name) && result.2.ends_with("; leave it out"), "{}", result.2);
    };
    unsupported(refusal(|spec| spec.options.provider = Some("replicate".into())).await, "provider");
    unsupported(
        refusal(|spec| spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default())).await,
        "skip_layer_guidance",
    );
    unsupported(refusal(|spec| drop(spec.options.extra.insert("scheduler".into(), "ddim".into()))).await, "scheduler");
    let request = || client().images().generate("a star").size(size!("32x32")).steps(1);
    let gif = request().output_format(Gif).send().await.unwrap_err();
    assert_eq!((gif.kind(), gif.parameter()), (ErrorKind::Unsupported, Some("output_format")));
    assert!(gif.to_string().ends_with("png, jpeg and webp, not gif; choose one of these"), "{gif}");
    let webp = request().output_format(Webp).output_compression(percent!(50)).send().await.unwrap_err();
    assert_eq!((webp.kind(), webp.parameter()), (ErrorKind::Unsupported, Some("output_compression")));
    assert!(webp.to_string().ends_with("; leave it out, or choose jpeg"), "{webp}");
    for pinned in [request().pin(Fal).send().await.unwrap_err(), request().pin(Replicate).send().await.unwrap_err()] {
        assert_eq!(pinned.parameter(), Some("provider"));
    }
}

#[tokio::test]
async fn sizes_that_the_model_cannot_make_name_the_side_and_the_step() {
    for (width, height, side, pixels) in [(40, 32, "width", 40), (32, 1000, "height", 1000), (272, 272, "width", 272)] {
        let (kind, parameter, message) = refusal(|spec| spec.options.size = Some(Size::Pixels { width, height })).await;
        assert_eq!((kind, parameter.as_deref()), (ErrorKind::InvalidRequest, Some("size")), "{message}");
        assert_eq!(message, format!("`{side}` is {pixels} pixels; ask for a multiple of 16, at most 192"));
    }
    for (side, remedy) in [(4000, "makes at most 1414x1414"), (0, "with no side of 0, or \"16:9\"")] {
        let size = Size::Pixels { width: side, height: side };
        let (kind, parameter, message) = refusal(|spec| spec.options.size = Some(size)).await;
        assert_eq!((kind, parameter.as_deref()), (ErrorKind::InvalidRequest, Some("size")), "{message}");
        assert!(message.ends_with(remedy), "{message}");
    }
}

#[tokio::test]
async fn steps_guidance_strength_and_prompts_out_of_range_are_named() {
    let invalid = |result: (ErrorKind, Option<String>, String), name: &str| {
        assert_eq!((result.0, result.1.as_deref()), (ErrorKind::InvalidRequest, Some(name)), "{}", result.2);
    };
    invalid(refusal(|spec| spec.options.sampling.steps = Some(0)).await, "steps");
    invalid(refusal(|spec| spec.options.sampling.steps = Some(1001)).await, "steps");
    invalid(refusal(|spec| spec.options.sampling.steps = Some(u32::MAX)).await, "steps");
    invalid(refusal(|spec| spec.options.sampling.guidance = Some(f32::NAN)).await, "guidance");
    invalid(refusal(|spec| spec.options.sampling.strength = Some(0.5)).await, "strength");
    invalid(refusal(|spec| spec.options.n = Some(0)).await, "n");
    invalid(refusal(|spec| spec.prompt = "  ".into()).await, "prompt");
    invalid(refusal(|spec| spec.prompt = "x".repeat(1001)).await, "prompt");
}

#[tokio::test]
async fn an_edit_refuses_masks_several_images_and_what_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.png");
    std::fs::write(&text, "no image at all").unwrap();
    let refused = |images: Vec<Input>, mask: Option<Input>| async {
        let mut spec = EditSpec::new(MODEL, images);
        spec.mask = mask;
        spec.options.sampling.steps = Some(1);
        client().images().edit_spec(spec).send().await.unwrap_err()
    };
    let made = client().images().generate("a star").size(size!("32x32")).steps(1).inline().send().await.unwrap();
    let image = || Input::bytes(made[0].bytes().clone());
    let cut = Input::bytes(made[0].bytes().slice(..made[0].bytes().len() / 2));

    let error = refused(vec![image()], Some(image())).await;
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("mask")));
    assert!(error.to_string().ends_with("; leave the mask out"), "{error}");
    let error = refused(vec![image(), image()], None).await;
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("image")));
    assert!(error.to_string().ends_with("one image, not 2; edit one after the other"), "{error}");
    let error = refused(vec![Input::path(&text)], None).await;
    let remedy = "notes.png is no PNG, JPEG, WebP or GIF image; convert it to PNG first";
    assert!(error.to_string().ends_with(remedy), "{error}");
    let error = refused(vec![Input::path(folder.path().join("missing.png"))], None).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("missing.png"), "{error}");
    assert!(error.to_string().ends_with("; check the path and its permissions"), "{error}");
    let error = refused(vec![cut], None).await;
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")), "{error}");
    assert!(error.to_string().ends_with("; give a whole PNG, JPEG or WebP file"), "{error}");
}

#[test]
fn a_folder_that_is_no_model_is_refused_at_once() {
    let empty = tempfile::tempdir().unwrap();
    for (folder, named, remedy) in [
        (empty.path().join("nowhere"), "nowhere", "give the folder that holds model_index.json"),
        (empty.path().to_path_buf(), "scheduler", "download the missing part again"),
    ] {
        let error = Client::local(folder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Model);
        assert!(error.to_string().contains(named) && error.to_string().ends_with(remedy), "{error}");
    }
}
