//! What is sent, compared with the model page's published examples.

use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::{ErrorKind, Input, OutputFormat, ResponseFormat, Sampling, SkipLayerGuidance};
use serde_json::{Value, json};

use crate::support::{
    Folder, JPEG, KEY, MODEL, ONE_ADDRESS, PNG, Part, answering, builder, edit_spec, gateway, generate_spec,
    json as answer, parts, remote, requests,
};

#[tokio::test]
async fn the_published_generation_is_sent_exactly() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let mut spec = generate_spec();
    spec.prompt = String::new();
    spec.options.size = Some("1024x1024".parse().unwrap());
    remote(&server).generate(spec, RequestContext::default()).await.unwrap();

    let [request] = &requests(&server).await[..] else { panic!("one request") };
    assert_eq!(request.url.path(), "/images/generations");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["accept"], "application/json");
    assert_eq!(request.headers["user-agent"], concat!("lumenfall-rust/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        request.body_json::<Value>().unwrap(),
        json!({ "model": "stable-diffusion-3.5-medium", "prompt": "", "size": "1024x1024" })
    );
}

#[tokio::test]
async fn the_published_edit_is_sent_exactly_and_no_field_twice() {
    let folder = Folder::new();
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let mut spec = edit_spec(vec![Input::path(folder.file("source.png", PNG))]);
    spec.prompt = Some("Add a starry night sky to this image".into());
    spec.options.size = Some("1024x1024".parse().unwrap());
    remote(&server).edit(spec, RequestContext::default()).await.unwrap();

    let [request] = &requests(&server).await[..] else { panic!("one request") };
    assert_eq!(request.url.path(), "/images/edits");
    assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
    assert!(request.headers.contains_key("content-length"), "servers refuse chunked uploads");
    assert_eq!(
        parts(request),
        [
            Part::file("image", "source.png", "image/png", PNG),
            Part::field("model", "stable-diffusion-3.5-medium"),
            Part::field("prompt", "Add a starry night sky to this image"),
            Part::field("size", "1024x1024"),
        ]
    );
}

#[tokio::test]
async fn every_parameter_has_its_name_on_the_wire() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let mut spec = generate_spec();
    let options = &mut spec.options;
    options.provider = Some("fal".into());
    options.aspect_ratio = Some("16:9".parse().unwrap());
    options.resolution = Some("1K".parse().unwrap());
    options.response_format = Some(ResponseFormat::Url);
    options.output_format = Some(OutputFormat::Webp);
    options.output_compression = Some(80);
    options.n = Some(2);
    options.user = Some("u-1".into());
    options.sampling = Sampling {
        seed: Some(u64::MAX),
        steps: Some(28),
        guidance: Some(4.6),
        negative_prompt: Some("blur".into()),
        strength: None,
        skip_layer_guidance: None,
    };
    options.extra.insert("scheduler".into(), json!({ "shift": 3 }));
    remote(&server).generate(spec, RequestContext::default()).await.unwrap();

    assert_eq!(
        requests(&server).await[0].body_json::<Value>().unwrap(),
        json!({
            "model": format!("fal/{MODEL}"),
            "prompt": "a cat",
            "aspect_ratio": "16:9",
            "resolution": "1K",
            "response_format": "url",
            "output_format": "webp",
            "output_compression": 80,
            "n": 2,
            "user": "u-1",
            "seed": u64::MAX,
            "num_inference_steps": 28,
            "guidance_scale": 4.6,
            "negative_prompt": "blur",
            "scheduler": { "shift": 3 },
        })
    );
}

#[tokio::test]
async fn several_images_and_a_mask_are_typed_by_their_content() {
    let folder = Folder::new();
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let misnamed = Input::path(folder.file("really a jpeg.png", JPEG));
    let (webp, gif) = (&b"RIFF\0\0\0\0WEBPVP8 "[..], &b"GIF89a and the rest"[..]);
    let mut spec = edit_spec(vec![misnamed, Input::bytes(webp), Input::bytes(gif)]);
    spec.mask = Some(Input::bytes(PNG));
    spec.options.sampling.strength = Some(0.6);
    spec.options.extra.insert("flag".into(), true.into());
    remote(&server).edit(spec, RequestContext::default()).await.unwrap();

    assert_eq!(
        parts(&requests(&server).await[0]),
        [
            Part::field("flag", "true"),
            Part::file("image[]", "really a jpeg.jpg", "image/jpeg", JPEG),
            Part::file("image[]", "image.webp", "image/webp", webp),
            Part::file("image[]", "image.gif", "image/gif", gif),
            Part::file("mask", "mask.png", "image/png", PNG),
            Part::field("model", MODEL),
            Part::field("strength", "0.6"),
        ]
    );
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    let folder = Folder::new();
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let content: Vec<u8> = PNG.iter().copied().chain((0..1_000_000).map(|i| (i % 251) as u8)).collect();
    let spec = edit_spec(vec![Input::path(folder.file("large.png", &content))]);
    remote(&server).edit(spec, RequestContext::default()).await.unwrap();
    assert!(parts(&requests(&server).await[0])[0] == Part::file("image", "large.png", "image/png", &content));
}

#[tokio::test]
async fn what_no_provider_takes_is_refused_by_name() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let mut spec = generate_spec();
    spec.options.sampling.skip_layer_guidance = Some(SkipLayerGuidance::default());
    let error = remote(&server).generate(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("skip_layer_guidance")));

    let mut spec = generate_spec();
    spec.options.sampling.strength = Some(0.5);
    let error = remote(&server).generate(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("strength")));

    let mut spec = generate_spec();
    spec.options.sampling.guidance = Some(f32::NAN);
    let error = remote(&server).generate(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("guidance")));
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn an_extra_parameter_cannot_send_a_field_twice() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let mut spec = generate_spec();
    spec.options.n = Some(1);
    spec.options.extra.insert("n".into(), 2.into());
    let error = remote(&server).generate(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("n")));

    let mut spec = edit_spec(vec![Input::bytes(PNG)]);
    spec.options.extra.insert("image".into(), "twice".into());
    let error = remote(&server).edit(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")));
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn an_estimate_is_a_dry_run_in_both_modes() {
    let dry_run = r#"{"estimated":true,"model":"fal/stable-diffusion-3.5-medium","provider":"fal",
        "total_cost_micros":20971,"currency":"usd","components":[{"type":"output","metric":"megapixels",
        "quantity":1.048576,"billable_quantity":2,"unit_price":0.02,"total_cost":20971},{}]}"#;
    let server = answering(answer(200, dry_run)).await;
    let remote = gateway(&server);
    let edit = edit_spec(vec![Input::bytes(PNG)]);
    for request in [Request::Generate(generate_spec()), Request::Edit(edit)] {
        let estimate = remote.estimate(request, RequestContext::default()).await.unwrap();
        assert_eq!((estimate.total.amount, estimate.total.currency.as_str()), (0.020971, "USD"));
        assert_eq!(estimate.provider.as_deref(), Some("fal"));
        let [output, bare] = &estimate.components[..] else { panic!("{:?}", estimate.components) };
        assert_eq!((output.kind.as_deref(), output.metric.as_deref()), (Some("output"), Some("megapixels")));
        assert_eq!((output.quantity, output.billable_quantity), (Some(1.048576), Some(2.0)));
        assert_eq!(output.unit_price.as_ref().map(|price| price.amount), Some(0.02));
        assert_eq!(output.total.as_ref().map(|total| total.amount), Some(0.020971));
        assert_eq!((&bare.kind, bare.quantity, &bare.total), (&None, None, &None));
        assert_eq!(estimate.model.as_deref(), Some("fal/stable-diffusion-3.5-medium"));
    }
    let requests = requests(&server).await;
    assert_eq!(requests[0].url.path(), "/images/generations");
    assert_eq!(requests[1].url.path(), "/images/edits");
    assert!(requests.iter().all(|request| request.url.query() == Some("dryRun=true")));
}

#[tokio::test]
async fn a_server_that_ignores_the_dry_run_is_an_error() {
    let server = answering(answer(200, r#"{"estimated":false,"total_cost_micros":7}"#)).await;
    let request = Request::Generate(generate_spec());
    assert!(gateway(&server).estimate(request, RequestContext::default()).await.unwrap_err().maybe_billed());

    let server = answering(answer(200, ONE_ADDRESS)).await;
    let request = Request::Generate(generate_spec());
    let error = gateway(&server).estimate(request, RequestContext::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.maybe_billed());
    assert_eq!(requests(&server).await.len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_the_gateway_is_not_asked_for_a_price() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let remote = builder(&format!("{}/openai/v1", server.uri())).backend().unwrap();
    assert!(!remote.capabilities().estimate);
    for request in [Request::Generate(generate_spec()), Request::Edit(edit_spec(vec![Input::bytes(PNG)]))] {
        let error = remote.estimate(request, RequestContext::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Unsupported, false));
        assert!(error.to_string().contains("native_url"), "{error}");
    }
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn the_base_address_may_have_a_path_a_slash_and_a_query() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    for tail in ["/openai/v1", "/openai/v1/", "/openai/v1?api-version=7"] {
        let remote = builder(&format!("{}{tail}", server.uri())).header("x-team", "blue").backend().unwrap();
        remote.generate(generate_spec(), RequestContext::default()).await.unwrap();
    }
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.url.path() == "/openai/v1/images/generations"));
    assert!(requests.iter().all(|request| request.headers["x-team"] == "blue"));
    assert_eq!(requests[2].url.query(), Some("api-version=7"));
}
