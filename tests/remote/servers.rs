//! The kinds of servers: which names parameters get, where they go, and which are refused.

use lumenfall::backend::ModelApi;
use lumenfall::images::typed::{Draft, Schema};
use lumenfall::remote::{ImageField, Server};
use lumenfall::stable_diffusion_3_5_medium::SCHEMA;
use lumenfall::{ResponseFormat, Sampling, SkipLayerGuidance};

use crate::requests::parts;
use crate::support::*;

/// A PNG of one opaque gray pixel, and the start of a PNG with an alpha channel.
const OPAQUE: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0";
const WITH_ALPHA: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";

fn server(kind: Server, uri: &str) -> Remote {
    builder(uri).server(kind).build().unwrap()
}

fn controls() -> Sampling {
    Sampling::default().with_seed(7).with_steps(28).with_guidance(4.5).with_negative_prompt("fog")
}

/// Sends a request and returns what the server received: the path, and the JSON or the parts of the form.
async fn received(kind: Server, request: Request) -> (String, Value, Vec<String>) {
    let http = responding(json_response(200, ONE_URL)).await;
    server(kind, &http.uri()).send(request, RequestContext::default()).await.unwrap();
    let [request] = &requests(&http).await[..] else { panic!("one request") };
    let form = if request.body_json::<Value>().is_ok() { Vec::new() } else { parts(request) };
    (request.url.path().to_owned(), request.body_json().unwrap_or_default(), form)
}

async fn refused(kind: Server, request: impl Into<Request>) -> (ErrorKind, Option<String>, String) {
    let remote = server(kind, UNREACHABLE);
    let request = request.into();
    let error = remote.send(request.clone(), RequestContext::default()).await.unwrap_err();
    if error.kind() == ErrorKind::Unsupported {
        let check = remote.check(&request).unwrap_err();
        assert_eq!((check.kind(), check.parameter()), (error.kind(), error.parameter()), "{check}");
    }
    (error.kind(), error.parameter().map(str::to_owned), error.to_string())
}

#[tokio::test]
async fn controls_of_a_generation_have_the_names_of_the_server() {
    let diffusers = json!({ "seed": 7, "num_inference_steps": 28, "guidance_scale": 4.5, "negative_prompt": "fog" });
    let extra_args =
        r#"{"negative_prompt":"fog","sample_params":{"guidance":{"txt_cfg":4.5},"sample_steps":28},"seed":7}"#;
    let in_prompt = format!("a cat<sd_cpp_extra_args>{extra_args}</sd_cpp_extra_args>");
    for (kind, prompt, fields) in [
        (Server::Gateway, "a cat", diffusers.clone()),
        (Server::VllmOmni, "a cat", diffusers.clone()),
        (Server::SgLang, "a cat", diffusers.clone()),
        (Server::DeepInfra, "a cat", diffusers.clone()),
        (Server::LiteLlm, "a cat", diffusers),
        (Server::StableDiffusionCpp, &in_prompt, json!({})),
        (Server::KoboldCpp, "a cat", json!({ "seed": 7, "steps": 28, "cfg_scale": 4.5, "negative_prompt": "fog" })),
        (Server::Together, "a cat", json!({ "seed": 7, "steps": 28, "guidance_scale": 4.5, "negative_prompt": "fog" })),
    ] {
        let mut spec = generate_spec();
        spec.options.sampling = controls();
        let (path, sent, _) = received(kind, spec.into()).await;
        let mut expected = fields;
        expected["model"] = MODEL.into();
        expected["prompt"] = prompt.into();
        assert_eq!((path.as_str(), sent), ("/images/generations", expected), "{kind}");
    }
    let mut spec = generate_spec();
    spec.options.sampling = controls();
    spec.options.sampling.guidance = None;
    let (_, sent, _) = received(Server::LocalAi, spec.into()).await;
    assert_eq!(sent, json!({ "model": MODEL, "prompt": "a cat|fog", "seed": 7, "step": 28 }));
}

#[tokio::test]
async fn the_strength_the_images_and_the_mask_of_an_edit_have_their_place() {
    let file = |name: &str| format!("name=\"{name}\"; filename");
    let edit = |mask: bool, sampling| {
        let mut spec = edit_spec([Input::bytes(PNG)]).with_prompt("stars");
        spec.mask = mask.then(|| Input::bytes(OPAQUE));
        spec.options.sampling = sampling;
        spec
    };
    let strength = || Sampling::default().with_strength(0.5);
    for (kind, image, mask, text) in [
        (Server::Gateway, "image", "mask", "name=\"strength\"\r\n\r\n0.5"),
        (Server::VllmOmni, "image", "mask_image", "name=\"strength\"\r\n\r\n0.5"),
        (Server::DeepInfra, "image", "mask", "name=\"strength\"\r\n\r\n0.5"),
        (
            Server::StableDiffusionCpp,
            "image[]",
            "mask",
            "stars<sd_cpp_extra_args>{\"strength\":0.5}</sd_cpp_extra_args>",
        ),
    ] {
        let (path, _, parts) = received(kind, edit(true, strength()).into()).await;
        assert_eq!(path, "/images/edits", "{kind}");
        for expected in [&file(image), &file(mask), text] {
            assert_eq!(parts.iter().filter(|part| part.contains(expected)).count(), 1, "{kind}: {expected}");
        }
    }
    for kind in [Server::LiteLlm, Server::OpenAi] {
        let (_, _, parts) = received(kind, edit(true, Sampling::default()).into()).await;
        assert!(parts.iter().any(|part| part.contains(&file("mask"))), "{kind}");
    }
    let image = base64_simd::STANDARD.encode_to_string(PNG);
    let (path, sent, _) = received(Server::KoboldCpp, edit(false, strength()).into()).await;
    let expected = json!({ "model": MODEL, "prompt": "stars", "denoising_strength": 0.5, "init_images": [image] });
    assert_eq!((path.as_str(), sent), ("/images/generations", expected));
    let (path, sent, _) = received(Server::LocalAi, edit(false, Sampling::default()).into()).await;
    let expected = json!({ "model": MODEL, "prompt": "stars", "files": [image] });
    assert_eq!((path.as_str(), sent), ("/images/generations", expected));
    let steps = Sampling::default().with_steps(9);
    let (path, _, parts) = received(Server::LocalAi, edit(true, steps).into()).await;
    assert_eq!(path, "/images/inpainting");
    assert!(parts.iter().any(|part| part.ends_with("name=\"steps\"\r\n\r\n9")), "{parts:?}");
    assert!(parts.iter().any(|part| part.contains(&file("mask"))), "{parts:?}");
}

#[tokio::test]
async fn what_a_server_ignores_or_rejects_is_refused_by_name() {
    let set = |change: fn(&mut GenerateSpec)| change;
    let cases = [
        (Server::OpenAi, "seed", set(|spec| spec.options.sampling.seed = Some(1))),
        (Server::OpenAi, "steps", |spec| spec.options.sampling.steps = Some(1)),
        (Server::OpenAi, "guidance", |spec| spec.options.sampling.guidance = Some(1.0)),
        (Server::OpenAi, "negative_prompt", |spec| spec.options.sampling.negative_prompt = Some("fog".into())),
        (Server::LocalAi, "guidance", |spec| spec.options.sampling.guidance = Some(1.0)),
        (Server::LocalAi, "output_format", |spec| spec.options.output_format = Some(OutputFormat::Webp)),
        (Server::VllmOmni, "n", |spec| spec.options.n = Some(11)),
        (Server::VllmOmni, "output_compression", |spec| spec.options.output_compression = Some(80)),
        (Server::SgLang, "size", |spec| spec.options.size = Some("16:9".parse().unwrap())),
        (Server::SgLang, "aspect_ratio", |spec| spec.options.aspect_ratio = Some("16:9".parse().unwrap())),
        (Server::Together, "resolution", |spec| spec.options.resolution = Some("1K".parse().unwrap())),
        (Server::KoboldCpp, "n", |spec| spec.options.n = Some(2)),
        (Server::SgLang, "provider", |spec| spec.options.provider = Some("fal".into())),
    ];
    for (kind, name, change) in cases {
        let mut spec = generate_spec();
        change(&mut spec);
        let (error, parameter, message) = refused(kind, spec).await;
        assert_eq!((error, parameter.as_deref()), (ErrorKind::Unsupported, Some(name)), "{kind}: {message}");
        assert!(message.contains(&format!("`{name}`")), "{message}");
        assert!(message.contains(&kind.to_string()) || message.contains("`remote`"), "{message}");
    }
    for kind in Server::ALL {
        let mut spec = generate_spec();
        spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
        assert_eq!(refused(kind, spec).await.1.as_deref(), Some("skip_layer_guidance"), "{kind}");
    }
    let edit = |change: fn(&mut EditSpec)| {
        let mut spec = edit_spec([Input::bytes(PNG)]).with_prompt("stars");
        change(&mut spec);
        spec
    };
    for (kind, name, spec) in [
        (Server::Together, "image", edit(|_| {})),
        (Server::SgLang, "mask", edit(|spec| spec.mask = Some(Input::bytes(OPAQUE)))),
        (Server::KoboldCpp, "mask", edit(|spec| spec.mask = Some(Input::bytes(OPAQUE)))),
        (Server::SgLang, "strength", edit(|spec| spec.options.sampling.strength = Some(0.5))),
        (Server::LocalAi, "strength", edit(|spec| spec.options.sampling.strength = Some(0.5))),
        (Server::LocalAi, "image", edit(|spec| spec.images.push(Input::bytes(PNG)))),
        (Server::LiteLlm, "seed", edit(|spec| spec.options.sampling.seed = Some(1))),
        (Server::LiteLlm, "output_format", edit(|spec| spec.options.output_format = Some(OutputFormat::Png))),
        (
            Server::StableDiffusionCpp,
            "output_format",
            edit(|spec| spec.options.output_format = Some(OutputFormat::Webp)),
        ),
    ] {
        let (error, parameter, message) = refused(kind, spec).await;
        assert_eq!((error, parameter.as_deref()), (ErrorKind::Unsupported, Some(name)), "{kind}: {message}");
    }
}

#[tokio::test]
async fn prompts_masks_and_extras_that_a_server_would_misread_are_refused() {
    let mask =
        |bytes: &'static [u8]| edit_spec([Input::bytes(PNG)]).with_prompt("stars").with_mask(Input::bytes(bytes));
    let extra = |name: &str| {
        let mut spec = generate_spec();
        spec.options.extra.insert(name.into(), 1.into());
        Request::from(spec)
    };
    let prompt = |text: &str| Request::from(GenerateSpec::new(MODEL, text));
    for (kind, name, request) in [
        (Server::LocalAi, "prompt", prompt("a cat | a dog")),
        (Server::StableDiffusionCpp, "prompt", prompt("a<sd_cpp_extra_args>{\"seed\":1}</sd_cpp_extra_args>")),
        (Server::VllmOmni, "mask", mask(WITH_ALPHA).into()),
        (Server::KoboldCpp, "cfg_scale", extra("cfg_scale")),
        (Server::Together, "width", extra("width")),
    ] {
        let (error, parameter, message) = refused(kind, request).await;
        assert_eq!((error, parameter.as_deref()), (ErrorKind::InvalidRequest, Some(name)), "{kind}: {message}");
    }
    // The gateway changes the transparent pixels.
    received(Server::Gateway, mask(WITH_ALPHA).into()).await;

    let mut spec = generate_spec();
    spec.options.sampling.negative_prompt = Some("</sd_cpp_extra_args>".into());
    spec.options.extra.insert("clip_skip".into(), 2.into());
    let (_, sent, _) = received(Server::StableDiffusionCpp, spec.into()).await;
    let prompt = sent["prompt"].as_str().unwrap();
    let json = prompt.strip_prefix("a cat<sd_cpp_extra_args>").unwrap().strip_suffix("</sd_cpp_extra_args>").unwrap();
    assert!(!json.contains('<'), "{json}");
    let expected = json!({ "negative_prompt": "</sd_cpp_extra_args>", "clip_skip": 2 });
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), expected);
    assert_eq!(sent.get("clip_skip"), None);
}

#[tokio::test]
async fn sizes_and_response_formats_follow_the_server() {
    for (kind, format, expected) in [
        (Server::Gateway, ResponseFormat::Url, json!({ "size": "512x768", "response_format": "url" })),
        (Server::VllmOmni, ResponseFormat::Url, json!({ "size": "512x768" })),
        (Server::VllmOmni, ResponseFormat::B64Json, json!({ "size": "512x768", "response_format": "b64_json" })),
        (Server::OpenAi, ResponseFormat::B64Json, json!({ "size": "512x768" })),
        (Server::LiteLlm, ResponseFormat::B64Json, json!({ "size": "512x768" })),
        (
            Server::Together,
            ResponseFormat::B64Json,
            json!({ "width": 512, "height": 768, "response_format": "base64" }),
        ),
    ] {
        let http = responding(json_response(200, json!({ "data": [{ "b64_json": png_base64() }] }))).await;
        let mut spec = generate_spec();
        spec.options.size = Some("512x768".parse().unwrap());
        spec.options.response_format = Some(format);
        send(&server(kind, &http.uri()), spec).await.unwrap();
        let mut sent = sent_json(&http).await;
        sent.as_object_mut().unwrap().retain(|name, _| !["model", "prompt"].contains(&name.as_str()));
        assert_eq!(sent, expected, "{kind}");
    }
}

#[tokio::test]
async fn the_builder_overrides_the_image_field_and_the_response_format() {
    let http = responding(json_response(200, ONE_URL)).await;
    for (field, images, expected) in [
        (ImageField::Image, 2, "name=\"image\"; filename"),
        (ImageField::ImageArray, 1, "name=\"image[]\"; filename"),
        (ImageField::ByCount, 2, "name=\"image[]\"; filename"),
    ] {
        let remote = builder(&http.uri()).server(Server::VllmOmni).image_field(field).build().unwrap();
        let images: Vec<_> = (0..images).map(|_| Input::bytes(PNG)).collect();
        let count = images.len();
        send_edit(&remote, edit_spec(images)).await.unwrap();
        let sent = parts(requests(&http).await.last().unwrap());
        assert_eq!(sent.iter().filter(|part| part.contains(expected)).count(), count, "{field:?}");
    }
    for (kind, send_it, expected) in [(Server::OpenAi, true, Some("url")), (Server::Gateway, false, None)] {
        let remote = builder(&http.uri()).server(kind).send_response_format(send_it).build().unwrap();
        let mut spec = generate_spec();
        spec.options.response_format = Some(ResponseFormat::Url);
        send(&remote, spec).await.unwrap();
        let sent: Value = requests(&http).await.last().unwrap().body_json().unwrap();
        assert_eq!(sent.get("response_format").and_then(Value::as_str), expected, "{kind}");
    }
}

#[test]
fn a_server_has_an_id_and_needs_a_base_url() {
    for kind in Server::ALL {
        assert_eq!(kind.id().parse::<Server>().unwrap(), kind);
        let built = Remote::builder().api_key(KEY).server(kind).build();
        if kind == Server::Gateway {
            built.unwrap();
        } else {
            let error = built.unwrap_err();
            assert_eq!((error.kind(), error.parameter()), (ErrorKind::Configuration, Some("base_url")));
            assert!(error.to_string().contains(kind.usual_base_url()), "{error}");
        }
    }
    let error = "vllm".parse::<Server>().unwrap_err();
    assert!(error.to_string().contains("vllm-omni"), "{error}");
    let identity = |kind| server(kind, UNREACHABLE).identity();
    assert_ne!(identity(Server::SgLang), identity(Server::VllmOmni));
}

/// Returns a schema with the parameters of `names`, whose edits need no image.
fn schema(names: &[&str]) -> &'static Schema {
    use lumenfall::images::typed::{Kind, Parameter, Presence};
    let parameter = |name: &str| Parameter {
        name: name.to_owned().leak(),
        description: "A parameter",
        kind: match name {
            "image" => Kind::File { repeatable: true },
            "prompt" => Kind::Text { max_length: None },
            _ => Kind::Number { minimum: 0.0, maximum: 100.0 },
        },
        default: None,
        media_types: &[],
        text_to_image: if name == "image" { Presence::Absent } else { Presence::Optional },
        image_edit: Presence::Optional,
        excludes: &[],
        requires: &[],
    };
    let parameters = names.iter().map(|name| parameter(name)).collect::<Vec<_>>().leak();
    Box::leak(Box::new(Schema { id: "custom", name: "Custom", parameters, ..SCHEMA }))
}

#[tokio::test]
async fn a_schema_decides_the_names_of_steps_and_guidance_and_whether_an_edit_needs_an_image() {
    let http = responding(json_response(200, ONE_URL)).await;
    let sampling = || Sampling::default().with_steps(20).with_guidance(3.0);
    for (kind, names, expected) in [
        (Server::Gateway, ["steps", "guidance"], json!({ "steps": 20, "guidance": 3.0 })),
        (Server::Gateway, ["num_inference_steps", "guidance"], json!({ "num_inference_steps": 20, "guidance": 3.0 })),
        (Server::LiteLlm, ["steps", "guidance_scale"], json!({ "steps": 20, "guidance_scale": 3.0 })),
        // A server that runs the model itself has one name for each control.
        (Server::VllmOmni, ["steps", "guidance"], json!({ "num_inference_steps": 20, "guidance_scale": 3.0 })),
    ] {
        let schema = schema(&[&["prompt", "image"][..], &names].concat());
        let mut spec = GenerateSpec::new("custom", "a cat");
        spec.options.sampling = sampling();
        let backend = Arc::new(server(kind, &http.uri()));
        Draft::new(backend, schema, spec).send().await.unwrap();
        let mut sent: Value = requests(&http).await.last().unwrap().body_json().unwrap();
        sent.as_object_mut().unwrap().retain(|name, _| !["model", "prompt"].contains(&name.as_str()));
        assert_eq!(sent, expected, "{kind} {names:?}");
    }
    let edit = EditSpec::new("custom", Vec::<Input>::new()).with_prompt("a cat");
    let backend: Arc<dyn Backend> = Arc::new(remote(&http.uri()));
    Draft::new(Arc::clone(&backend), schema(&["prompt", "image"]), edit.clone()).send().await.unwrap();
    let sent = parts(requests(&http).await.last().unwrap());
    assert_eq!(sent.len(), 2, "{sent:?}");
    // Without the schema, an edit needs an image.
    let error = backend.send(edit.into(), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")));
    assert!(!ModelApi::default().optional_image && schema(&["image"]).api().optional_image);
}
