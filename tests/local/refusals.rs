//! The local backend refuses options and inputs that it does not support, by name.

use lumenfall::ErrorKind::{InvalidRequest, Io, Model, Unsupported};
use lumenfall::backend::{Backend, EditSpec, GenerateSpec, RequestContext};
use lumenfall::local::Local;
use lumenfall::{Client, ErrorKind, Input, Size, SkipLayerGuidance};

use crate::inpainting::mask;
use crate::{client, spec};

#[tokio::test]
async fn options_that_are_unsupported_or_out_of_range_are_refused_by_name() {
    fn size(spec: &mut GenerateSpec, width: u32, height: u32) {
        spec.options.size = Some(Size::Pixels { width, height });
    }
    type Case = (ErrorKind, &'static str, &'static str, fn(&mut GenerateSpec));
    let leave_out = "leave it out";
    let cases: [Case; 9] = [
        (Unsupported, "model", "it runs stable-diffusion-3.5-medium", |spec| spec.model = "another".into()),
        (Unsupported, "provider", leave_out, |spec| spec.options.provider = Some("fal".into())),
        (Unsupported, "skip_layer_guidance", "has layer 7; the model has layers 0 to 2", |spec| {
            spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
        }),
        (Unsupported, "scheduler", leave_out, |spec| {
            spec.options.extra.insert("scheduler".into(), "ddim".into());
        }),
        (InvalidRequest, "strength", "strength", |spec| spec.options.sampling.strength = Some(0.5)),
        (Unsupported, "size", "`size` is 40x32; it supports multiples of 16, at most 192x192", |spec| {
            size(spec, 40, 32)
        }),
        (Unsupported, "size", "`size` is 32x1000", |spec| size(spec, 32, 1000)),
        (Unsupported, "size", "`size` is 272x272", |spec| size(spec, 272, 272)),
        (InvalidRequest, "steps", "use a number from 1 to 1000", |spec| spec.options.sampling.steps = Some(1001)),
    ];
    for (kind, parameter, message, change) in cases {
        let error = client().request(spec(change)).send().await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (kind, Some(parameter)), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn an_edit_needs_one_readable_image_and_a_mask_that_fits() {
    let client = client();
    let folder = tempfile::tempdir().unwrap();
    let file = |name| Input::path(folder.path().join(name));
    std::fs::write(folder.path().join("notes.png"), "not an image").unwrap();
    let png = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap()[0].bytes().clone();
    let image = || Input::bytes(png.clone());
    let truncated = Input::bytes(png.slice(..png.len() / 2));
    for (images, mask, kind, parameter, message) in [
        (vec![image()], Some(image()), InvalidRequest, "mask", "has no transparent pixel"),
        (vec![image()], Some(mask(16, 32)), InvalidRequest, "mask", "has 16x32 pixels, but the image has 32x32"),
        (vec![image()], Some(file("missing.png")), Io, "mask", "missing.png"),
        (vec![image(), image()], None, Unsupported, "image", "has 2 images; it supports at most 1"),
        (vec![file("notes.png")], None, InvalidRequest, "image", "notes.png"),
        (vec![file("missing.png")], None, Io, "image", "missing.png"),
        (vec![truncated], None, InvalidRequest, "image", "provide a complete PNG, JPEG, WebP or GIF file"),
    ] {
        let mut edit = EditSpec::new(spec(|_| {}).model, images);
        (edit.mask, edit.options.sampling.steps) = (mask, Some(1));
        let error = client.images().edit_spec(edit).send().await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (kind, Some(parameter)), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn a_folder_without_a_model_is_refused_immediately() {
    let empty = tempfile::tempdir().unwrap();
    for (folder, file, remedy) in [
        (
            empty.path().join("nowhere"),
            "nowhere",
            "specify a folder in the diffusers layout, or a safetensors or GGUF file",
        ),
        (empty.path().to_path_buf(), "denoiser", "into the same folder"),
    ] {
        let error = Client::local(folder).unwrap_err();
        assert_eq!(error.kind(), Model);
        assert!(error.to_string().contains(file) && error.to_string().ends_with(remedy), "{error}");
    }
}

#[tokio::test]
async fn a_model_with_another_id_runs_the_requests_for_that_id_only() {
    let local = Local::demo().unwrap().model_id("another");
    let mut request = spec(|spec| spec.model = "another".into());
    local.send(request.clone().into(), RequestContext::default()).await.unwrap();
    request.model = "stable-diffusion-3.5-medium".into();
    for error in [
        local.check(&request.clone().into()).unwrap_err(),
        local.send(request.into(), RequestContext::default()).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.parameter()), (Unsupported, Some("model")), "{error}");
    }
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_fallback_sends_what_only_the_local_model_cannot_generate_to_the_next_backend() {
    use lumenfall::layers::Fallback;
    use lumenfall::testing::MockBackend;

    let mock = MockBackend::new();
    let client = Client::new(Fallback::new(Local::demo().unwrap()).then(mock.clone()));
    let large = spec(|spec| spec.options.size = Some(Size::Pixels { width: 1024, height: 1024 }));
    client.backend().check(&large.clone().into()).unwrap();
    let images = client.images().generate_spec(large).inline().send().await.unwrap();
    assert_eq!((&*images.metadata().backend, mock.requests().len()), ("mock", 1));
    let images = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap();
    assert_eq!((&*images.metadata().backend, mock.requests().len()), ("local", 1));
}
