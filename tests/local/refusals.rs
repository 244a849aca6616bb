//! The local backend refuses options and inputs that it does not support, by name.

use lumenfall::ErrorKind::{InvalidRequest, Io, Model, Unsupported};
use lumenfall::OutputFormat::{Gif, Webp};
use lumenfall::backend::{EditSpec, GenerateSpec};
use lumenfall::{Client, ErrorKind, Input, Size, SkipLayerGuidance};

use crate::{client, spec};

#[tokio::test]
async fn options_that_are_unsupported_or_out_of_range_are_refused_by_name() {
    fn size(spec: &mut GenerateSpec, width: u32, height: u32) {
        spec.options.size = Some(Size::Pixels { width, height });
    }
    type Case = (ErrorKind, &'static str, &'static str, fn(&mut GenerateSpec));
    let leave_out = "is not supported by the local backend; leave it out";
    let cases: [Case; 10] = [
        (Unsupported, "provider", leave_out, |spec| spec.options.provider = Some("fal".into())),
        (Unsupported, "skip_layer_guidance", leave_out, |spec| {
            spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
        }),
        (Unsupported, "scheduler", leave_out, |spec| {
            spec.options.extra.insert("scheduler".into(), "ddim".into());
        }),
        (Unsupported, "output_format", "only writes png, jpeg and webp", |spec| spec.options.output_format = Some(Gif)),
        (Unsupported, "output_compression", "lossless webp; choose jpeg", |spec| {
            (spec.options.output_format, spec.options.output_compression) = (Some(Webp), Some(50));
        }),
        (InvalidRequest, "strength", "strength", |spec| spec.options.sampling.strength = Some(0.5)),
        (InvalidRequest, "size", "`width` is 40 pixels; use a multiple of 16 up to 192", |spec| size(spec, 40, 32)),
        (InvalidRequest, "size", "`height` is 1000 pixels; use a multiple of 16", |spec| size(spec, 32, 1000)),
        (InvalidRequest, "size", "`width` is 272 pixels; use a multiple of 16", |spec| size(spec, 272, 272)),
        (InvalidRequest, "steps", "use a number from 1 to 1000", |spec| spec.options.sampling.steps = Some(1001)),
    ];
    for (kind, parameter, message, change) in cases {
        let error = client().images().generate_spec(spec(change)).send().await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (kind, Some(parameter)), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn an_edit_needs_one_readable_image_and_no_mask() {
    let client = client();
    let folder = tempfile::tempdir().unwrap();
    let file = |name| Input::path(folder.path().join(name));
    std::fs::write(folder.path().join("notes.png"), "not an image").unwrap();
    let png = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap()[0].bytes().clone();
    let image = || Input::bytes(png.clone());
    let truncated = Input::bytes(png.slice(..png.len() / 2));
    for (images, mask, kind, parameter, message) in [
        (vec![image()], Some(image()), Unsupported, "mask", "leave the mask out"),
        (vec![image(), image()], None, Unsupported, "image", "has 2 images; the local backend requires one"),
        (vec![file("notes.png")], None, InvalidRequest, "image", "notes.png"),
        (vec![file("missing.png")], None, Io, "image", "missing.png"),
        (vec![truncated], None, InvalidRequest, "image", "provide a complete PNG, JPEG or WebP file"),
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
        (empty.path().join("nowhere"), "nowhere", "specify the folder that contains model_index.json"),
        (empty.path().to_path_buf(), "scheduler", "download the missing file"),
    ] {
        let error = Client::local(folder).unwrap_err();
        assert_eq!(error.kind(), Model);
        assert!(error.to_string().contains(file) && error.to_string().ends_with(remedy), "{error}");
    }
}
