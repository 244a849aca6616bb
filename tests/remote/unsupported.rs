//! Parameters that a backend does not support are rejected by name. The backends here have no server, so a request that was
//! sent would fail as `Connection`.

use lumenfall::SkipLayerGuidance;

use crate::support::*;

fn fal() -> Fal {
    Fal::builder().api_key(KEY).base_url(UNREACHABLE).build().unwrap()
}

fn replicate() -> Replicate {
    Replicate::builder().api_key(KEY).base_url(UNREACHABLE).build().unwrap()
}

/// The error, the backends that must report it, the name in the error, and the change that causes it.
type Case<'a> = (ErrorKind, &'a [&'a dyn Backend], &'static str, fn(&mut GenerateSpec));

#[tokio::test]
async fn unsupported_and_invalid_parameters_of_a_generation_are_rejected_by_name() {
    use ErrorKind::{InvalidRequest, Unsupported};

    let (gateway, fal, replicate) =
        (&remote(UNREACHABLE) as &dyn Backend, &fal() as &dyn Backend, &replicate() as &dyn Backend);
    let (all, providers) = ([gateway, fal, replicate], [fal, replicate]);
    let cases: [Case; 23] = [
        (Unsupported, &providers, "model", |spec| spec.model = "another".into()),
        (Unsupported, &providers, "resolution", |spec| spec.options.resolution = Some("1K".parse().unwrap())),
        (Unsupported, &providers, "output_compression", |spec| spec.options.output_compression = Some(80)),
        (Unsupported, &providers, "user", |spec| spec.options.user = Some("u".into())),
        (Unsupported, &providers, "output_format", |spec| spec.options.output_format = Some(OutputFormat::Avif)),
        (Unsupported, &all, "skip_layer_guidance", |spec| {
            spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
        }),
        (Unsupported, &[fal], "size", |spec| spec.options.size = Some("5:4".parse().unwrap())),
        (Unsupported, &[fal], "aspect_ratio", |spec| spec.options.aspect_ratio = Some("5:4".parse().unwrap())),
        (Unsupported, &[fal], "provider", |spec| spec.options.provider = Some("replicate".into())),
        (Unsupported, &[replicate], "guidance", |spec| spec.options.sampling.guidance = Some(0.5)),
        (Unsupported, &[replicate], "guidance", |spec| spec.options.sampling.guidance = Some(10.5)),
        (Unsupported, &[replicate], "size", |spec| spec.options.size = Some("512x512".parse().unwrap())),
        (Unsupported, &[replicate], "steps", |spec| spec.options.sampling.steps = Some(3)),
        (InvalidRequest, &all, "n", |spec| spec.options.n = Some(0)),
        (InvalidRequest, &all, "prompt", |spec| spec.prompt = " \n".into()),
        (InvalidRequest, &all, "strength", |spec| spec.options.sampling.strength = Some(0.5)),
        (InvalidRequest, &all, "guidance", |spec| spec.options.sampling.guidance = Some(f32::NAN)),
        // Extra parameters that have their own setter, in the words of each service.
        (InvalidRequest, &all, "n", |spec| spec.options.extra.extend([("n".into(), 4.into())])),
        (InvalidRequest, &[gateway], "prompt", |spec| spec.options.extra.extend([("prompt".into(), "a dog".into())])),
        (InvalidRequest, &[fal], "num_images", |spec| spec.options.extra.extend([("num_images".into(), 4.into())])),
        (InvalidRequest, &[fal], "image_size", |spec| {
            spec.options.extra.extend([("image_size".into(), "square".into())])
        }),
        (InvalidRequest, &[replicate], "cfg", |spec| spec.options.extra.extend([("cfg".into(), 4.into())])),
        (InvalidRequest, &[replicate], "prompt_strength", |spec| {
            spec.options.extra.extend([("prompt_strength".into(), 1.into())]);
        }),
    ];
    for (kind, backends, name, change) in cases {
        let mut spec = generate_spec();
        change(&mut spec);
        for backend in backends {
            let error = send(*backend, spec.clone()).await.unwrap_err();
            assert_eq!((error.kind(), error.parameter()), (kind, Some(name)), "{backend:?}");
        }
    }
}

#[tokio::test]
async fn unsupported_parameters_of_an_edit_are_rejected_by_name() {
    let edit = || edit_spec([Input::bytes(PNG)]).with_prompt("stars");
    assert_eq!(send_edit(&fal(), edit()).await.unwrap_err().kind(), ErrorKind::Unsupported);
    let set = |change: fn(&mut EditSpec)| change;
    for (name, change) in [
        ("prompt", set(|spec| spec.prompt = None)),
        ("mask", |spec| spec.mask = Some(Input::bytes(PNG))),
        ("image", |spec| spec.images.push(Input::bytes(PNG))),
        ("size", |spec| spec.options.size = Some("16:9".parse().unwrap())),
        ("size", |spec| spec.options.size = Some("512x512".parse().unwrap())),
        ("aspect_ratio", |spec| spec.options.aspect_ratio = Some("16:9".parse().unwrap())),
    ] {
        let mut spec = edit();
        change(&mut spec);
        let error = send_edit(&replicate(), spec).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some(name)));
    }
    let mut spec = edit();
    spec.options.extra.insert("image".into(), "twice".into());
    let error = send_edit(&remote(UNREACHABLE), spec).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")));
}
