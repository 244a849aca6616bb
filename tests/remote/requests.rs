//! Requests: what the client sends, compared with the examples of the model's documentation.

use lumenfall::ResponseFormat;

use crate::support::*;

#[tokio::test]
async fn the_documented_generation_is_sent_exactly() {
    let server = responding(json_response(200, ONE_URL)).await;
    let mut spec = generate_spec();
    // The documentation shows an empty prompt, which every backend rejects.
    spec.options.size = Some("1024x1024".parse().unwrap());
    send(&remote(&server.uri()), spec).await.unwrap();
    let body = json!({ "model": "stable-diffusion-3.5-medium", "prompt": "a cat", "size": "1024x1024" });
    assert_eq!(sent_json(&server).await, body);
    let [request] = &requests(&server).await[..] else { panic!("one request") };
    assert_eq!(request.url.path(), "/images/generations");
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("user-agent", concat!("lumenfall-rust/", env!("CARGO_PKG_VERSION"))),
        ("authorization", &format!("Bearer {KEY}")),
    ] {
        assert_eq!(request.headers[name], value);
    }
}

/// Returns the parts of a multipart body, sorted. Each is its headers and its content.
pub(crate) fn parts(request: &wiremock::Request) -> Vec<String> {
    let content_type = request.headers["content-type"].to_str().unwrap();
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let (start, end) = (format!("--{boundary}\r\n"), format!("--{boundary}--\r\n"));
    let body = latin1(&request.body);
    let parts = body.strip_suffix(&end).unwrap().split(&start).skip(1);
    let mut parts: Vec<_> = parts.map(|part| part.strip_suffix("\r\n").unwrap().to_owned()).collect();
    parts.sort();
    parts
}

fn field(name: &str, value: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}")
}

fn file(name: &str, file_name: &str, media_type: &str, content: &[u8]) -> String {
    let head = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"{file_name}\"\r\n");
    format!("{head}Content-Type: {media_type}\r\n\r\n{}", latin1(content))
}

/// Maps each byte to one character, without loss.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[tokio::test]
async fn the_documented_edit_is_sent_exactly_by_each_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source.png");
    let content: Vec<u8> = PNG.iter().copied().chain((0..1_000_000).map(|i| (i % 251) as u8)).collect();
    std::fs::write(&path, &content).unwrap();
    let server = MockServer::start().await;
    let rejection = ResponseTemplate::new(429).insert_header("retry-after-ms", "1");
    on(&server, "POST", "/images/edits", Some(1), rejection).await;
    on(&server, "POST", "/images/edits", None, json_response(200, ONE_URL)).await;
    let mut spec = edit_spec([Input::path(path)]);
    spec.prompt = Some("Add a starry night sky to this image".into());
    spec.options.size = Some("1024x1024".parse().unwrap());
    let remote = builder(&server.uri()).retry(RetryPolicy::default().max_wait(Duration::ZERO)).build().unwrap();
    send_edit(&remote, spec).await.unwrap();
    let requests = requests(&server).await;
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.headers["authorization"], format!("Bearer {KEY}"));
        assert!(request.headers.contains_key("content-length"), "some servers reject chunked uploads");
        let expected = [
            file("image", "source.png", "image/png", &content),
            field("model", "stable-diffusion-3.5-medium"),
            field("prompt", "Add a starry night sky to this image"),
            field("size", "1024x1024"),
        ];
        assert!(parts(&request) == expected);
    }
}

#[tokio::test]
async fn every_parameter_has_its_wire_name() {
    let server = responding(json_response(200, ONE_URL)).await;
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
    options.sampling.seed = Some(u64::MAX);
    options.sampling.steps = Some(28);
    options.sampling.guidance = Some(4.6);
    options.sampling.negative_prompt = Some("blur".into());
    options.extra.insert("scheduler".into(), json!({ "shift": 3 }));
    let mut used = spec.options.clone();
    (used.user, used.response_format) = (None, None);
    let output = send(&remote(&server.uri()), spec).await.unwrap();
    assert_eq!(output.metadata.parameters, Some(used));
    assert_eq!(
        sent_json(&server).await,
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
async fn several_images_and_a_mask_get_their_media_types_from_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let misnamed = folder.path().join("really a jpeg.png");
    std::fs::write(&misnamed, JPEG).unwrap();
    let server = responding(json_response(200, ONE_URL)).await;
    let (webp, gif) = (&b"RIFF\0\0\0\0WEBPVP8 "[..], &b"GIF89a and the rest"[..]);
    let images = [Input::path(misnamed), Input::bytes(webp), Input::bytes(gif)];
    let mut spec = edit_spec(images);
    spec.mask = Some(Input::bytes(PNG));
    spec.options.sampling.strength = Some(0.6);
    spec.options.extra.insert("flag".into(), true.into());
    send_edit(&remote(&server.uri()), spec).await.unwrap();
    let mut expected = [
        field("flag", "true"),
        file("image[]", "really a jpeg.jpg", "image/jpeg", JPEG),
        file("image[]", "image.webp", "image/webp", webp),
        file("image[]", "image.gif", "image/gif", gif),
        file("mask", "mask.png", "image/png", PNG),
        field("model", MODEL),
        field("strength", "0.6"),
    ];
    expected.sort();
    assert_eq!(parts(&requests(&server).await[0]), expected);
}

#[tokio::test]
async fn the_base_url_may_have_a_path_a_trailing_slash_and_a_query() {
    let server = responding(json_response(200, ONE_URL)).await;
    for tail in ["/openai/v1", "/openai/v1/", "/openai/v1?api-version=7"] {
        let remote = builder(&format!("{}{tail}", server.uri())).header("x-team", "blue").build().unwrap();
        generate(&remote).await.unwrap();
    }
    let requests = requests(&server).await;
    assert!(requests.iter().all(|request| request.url.path() == "/openai/v1/images/generations"));
    assert!(requests.iter().all(|request| request.headers["x-team"] == "blue"));
    assert_eq!(requests[2].url.query(), Some("api-version=7"));
}
