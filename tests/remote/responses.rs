//! Responses: which images, metadata and errors the client reads from them.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::*;

async fn images(response: ResponseTemplate) -> Images<Hosted> {
    generate(&remote(&responding(response).await.uri())).await.unwrap()
}

#[tokio::test]
async fn a_url_expires_by_its_signature_or_an_hour_after_its_creation() {
    let expiry = async |body: Value| {
        let expiry = images(json_response(200, body)).await[0].expires_at();
        expiry.map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    };
    let signed = json!({ "data": [{ "url": "https://media.example/1.png?Expires=1795507200&Signature=s" }] });
    assert_eq!(expiry(signed).await, Some(1_795_507_200));
    assert_eq!(expiry(json!({ "data": [{ "b64_json": png_base64() }] })).await, None);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    // Some servers send 0 or milliseconds as the time of creation.
    let unusable = [json!(null), json!(0), json!(now * 1000), json!(u64::MAX)].map(|created| (created, now));
    for (created, from) in unusable.into_iter().chain([(json!(now - 600), now - 600)]) {
        let expires = expiry(json!({ "created": created, "data": [{ "url": "https://media.example/1.png" }] })).await;
        assert!((from + 3600..from + 3660).contains(&expires.unwrap()), "{created}: {expires:?}");
    }
}

#[tokio::test]
async fn the_documented_response_is_read_with_the_metadata_of_its_body_and_headers() {
    let documented = images(json_response(200, ONE_URL)).await;
    assert_eq!((documented.len(), documented[0].url()), (1, Some("https://media.example/1.png")));
    assert_eq!((documented[0].revised_prompt(), documented.metadata().created), (Some("a cat"), Some(1_234_567_890)));

    let body = json!({
        "id": "gen_1", "data": [{ "url": "https://media.example/1.png", "seed": 7 }],
        "metadata": { "model": "m", "executed_model": "fal/m", "provider": "fal", "provider_name": "fal.ai",
                      "cost": 0.02, "cost_currency": "usd" }
    });
    let from_body = images(json_response(200, body).insert_header("X-Lumenfall-Request-Id", "req_1")).await;
    let metadata = from_body.metadata();
    assert_eq!((metadata.provider.as_deref(), metadata.model.as_deref()), (Some("fal"), Some("fal/m")));
    assert_eq!((metadata.request_id.as_deref(), from_body[0].seed()), (Some("req_1"), Some(7)));
    let cost = metadata.cost.as_ref().map(|cost| (cost.amount(), cost.currency.as_str()));
    assert_eq!((metadata.backend.as_str(), cost), ("remote", Some((0.02, "USD"))));

    let response = json_response(200, ONE_URL).insert_header("X-Lumenfall-Provider", "replicate");
    let from_headers = images(response.insert_header("X-Lumenfall-Model", "replicate/m")).await;
    let metadata = from_headers.metadata();
    assert_eq!((metadata.provider.as_deref(), metadata.model.as_deref()), (Some("replicate"), Some("replicate/m")));
    assert_eq!(metadata.headers.get("X-Lumenfall-Model"), Some("replicate/m"));
    assert!(metadata.headers.iter().any(|header| header == ("content-type", "application/json")));
}

#[tokio::test]
async fn debug_output_shows_the_names_of_all_headers_but_only_harmless_values() {
    let response = json_response(200, ONE_URL).insert_header("x-lumenfall-provider", format!("replicate {KEY}"));
    let images = images(response.insert_header("location", "https://media.example/1.png?sig=canary")).await;
    let text = format!("{:?} {images:?}", images.metadata());
    for shown in ["\"location\"", "\"x-lumenfall-provider\"", "\"application/json\"", "replicate [key]"] {
        assert!(text.contains(shown), "{text}");
    }
    assert!(!text.contains("canary"), "{text}");
    let location = images.metadata().headers.get("location");
    assert_eq!(location, Some("https://media.example/1.png?sig=canary"), "a caller can read it");
}

#[tokio::test]
async fn all_images_are_returned_even_as_bytes_in_place_of_requested_urls() {
    let data = vec![json!({ "b64_json": png_base64() }); 10];
    let server = responding(json_response(200, json!({ "data": data }))).await;
    let images = generate_inline(&remote(&server.uri())).await.unwrap();
    assert_eq!(images.len(), 10);
    assert!(images.iter().all(|image| image.bytes() == PNG && image.media_type() == Some("image/png")));
    assert_eq!(sent_json(&server).await["response_format"], "b64_json");

    let images = generate(&remote(&server.uri())).await.unwrap();
    assert_eq!((images.len(), images[9].url()), (10, None));
    assert_eq!(images[9].download().await.unwrap(), PNG);
}

#[test]
fn complete_images_outlive_a_broken_connection() {
    let body = format!(r#"{{"data":[{{"b64_json":"{0}"}},{{"b64_json":"{0}"}},{{"b64_json":"{0}"#, png_base64());
    let truncated = format!("HTTP/1.1 200 OK\r\nx-request-id: req_9\r\ncontent-length: 99999\r\n\r\n{body}");
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(60));
    for (act, idle, timeout) in [
        (Act::Send as fn(_) -> _, long, long),
        (Act::Reset, long, long),
        (Act::Hang, short, long),
        (Act::Hang, long, short),
    ] {
        paused(async {
            let server = RawServer::start([act(truncated.clone().into_bytes())]).await;
            let remote = builder(&server.uri).idle_timeout(idle).timeout(timeout).build().unwrap();
            let images = generate_inline(&remote).await.unwrap();
            assert_eq!((images.len(), images[1].bytes(), server.requests()), (2, &PNG.into(), 1));
            let metadata = images.metadata();
            assert_eq!((metadata.warnings.len(), metadata.request_id.as_deref()), (1, Some("req_9")));
            assert!(metadata.warnings[0].contains('2'), "the number of images: {:?}", metadata.warnings);
        });
    }
}

#[test]
fn a_size_limit_applies_before_the_body_is_read_and_is_256_mib_by_default() {
    let default = builder("");
    for (builder, length, limit) in [
        (default.clone(), 256 << 20, None),
        (default.clone(), (256 << 20) + 1, Some("268435456")),
        (default.clone().max_response_bytes(3000), 3001, Some("3000")),
        // No buffer of this size is allocated.
        (default.max_response_bytes(usize::MAX), i64::MAX, None),
    ] {
        paused(async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let server = RawServer::start([Act::Send((head + r#"{"data":[{"b64_json":"aGVsbG8="#).into())]).await;
            let remote = builder.base_url(&server.uri).build().unwrap();
            let error = generate(&remote).await.unwrap_err();
            let kind = if limit.is_some() { ErrorKind::InvalidResponse } else { ErrorKind::Connection };
            assert_eq!((error.kind(), error.maybe_billed()), (kind, true));
            assert!(error.to_string().contains(limit.unwrap_or_default()), "{error}");
            assert!(!remote.models().list().await.unwrap_err().maybe_billed());
        });
    }
}

/// These tests enable the gzip feature of reqwest, as another crate in an application may do.
#[tokio::test]
async fn only_a_custom_http_client_decompresses_responses_and_the_size_limit_still_applies() {
    let compressed = ResponseTemplate::new(200).insert_header("content-encoding", "gzip").set_body_bytes(gzip_bomb());
    let server = responding(compressed).await;
    let builder = builder(&server.uri()).max_response_bytes(64 * 1024);
    let custom = builder.clone().http_client(http_client().build().unwrap());
    for (builder, exceeds) in [(builder, false), (custom, true)] {
        let error = generate(&builder.build().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("65536")), (ErrorKind::InvalidResponse, exceeds));
        let requests = requests(&server).await;
        assert_eq!(requests.last().unwrap().headers.contains_key("accept-encoding"), exceeds);
    }
}

#[tokio::test]
async fn a_404_names_its_url_and_a_redirect_its_target_without_their_queries() {
    for (response, shown) in [
        (json_response(404, r#"{"detail":"Not Found"}"#), "Not Found; the requested URL is {}/images/generations"),
        (json_response(404, ""), "no explanation; the requested URL is {}/images/generations"),
        (
            json_response(308, "").insert_header("location", "https://user:pw@new.example:8443/v2?sig=canary"),
            "redirects to https://new.example:8443/v2; this",
        ),
        (json_response(301, "").insert_header("location", "/v2/"), "redirects to {}/v2/; this"),
        (json_response(301, ""), "redirects to another URL; this"),
    ] {
        let server = responding(response).await;
        let base_url = format!("{}?api-version=canary-2026", server.uri());
        let error = generate(&remote(&base_url)).await.unwrap_err().to_string();
        assert!(error.contains(&shown.replace("{}", &server.uri())), "{error}");
        assert!(!error.contains("canary") && !error.contains("pw"), "{error}");
    }
}

#[tokio::test]
async fn the_request_ids_of_gateways_are_read() {
    for header in
        ["x-litellm-call-id", "apim-request-id", "x-amzn-RequestId", "Request-Id", "cf-ray", "X-Kong-Request-Id"]
    {
        let id = async |header| {
            let response = json_response(500, "{}").insert_header(header, "req_9");
            let error = generate(&remote(&responding(response).await.uri())).await.unwrap_err();
            error.request_id().map(str::to_owned)
        };
        assert_eq!(id(header).await.as_deref(), Some("req_9"), "{header}");
    }
    // The id of the gateway is more specific than that of a proxy, whatever the order of the headers.
    let response = json_response(500, "{}").insert_header("cf-ray", "ray_1").insert_header("x-request-id", "req_1");
    let error = generate(&remote(&responding(response).await.uri())).await.unwrap_err();
    assert_eq!(error.request_id(), Some("req_1"));
}

#[tokio::test]
async fn a_wait_in_the_body_counts_like_the_header() {
    for (header, body, seconds) in [
        (None, r#"{"detail":"Request was throttled.","retry_after":7}"#, Some(7)),
        (Some("3"), r#"{"retry_after":7}"#, Some(3)),
        (None, r#"{"detail":"Request was throttled."}"#, None),
    ] {
        let response = json_response(429, body);
        let response = header.into_iter().fold(response, |response, wait| response.insert_header("retry-after", wait));
        let server = responding(response).await;
        let remote = builder(&server.uri()).retry(RetryPolicy::none()).build().unwrap();
        let error = generate(&remote).await.unwrap_err();
        assert_eq!(error.retry_after(), seconds.map(Duration::from_secs), "{body}");
    }
}

#[tokio::test]
async fn images_of_an_event_stream_are_returned_and_its_partial_images_are_progress() {
    let image = png_base64();
    let stream = [
        "event: image_generation.partial_image".to_owned(),
        format!(r#"data: {{"type":"image_generation.partial_image","b64_json":"{image}","partial_image_index":0}}"#),
        String::new(),
        "event: image_generation.completed".to_owned(),
        format!(r#"data: {{"type":"image_generation.completed","b64_json":"{image}","usage":{{"total_tokens":7}}}}"#),
        String::new(),
    ];
    let complete = ResponseTemplate::new(200).set_body_raw(stream.join("\n"), "text/event-stream");
    let server = responding(complete).await;
    let (context, reported) = progress();
    let output = remote(&server.uri()).send(generate_spec().into(), context).await.unwrap();
    assert_eq!(output.images.len(), 1);
    assert_eq!(output.images[0].content, Content::Bytes(PNG.into()));
    assert_eq!(output.metadata.service.0["usage"]["total_tokens"], 7);
    let partial = Progress::PartialImage { index: 0, content: Content::Bytes(PNG.into()) };
    assert_eq!(*reported.lock().unwrap(), [partial]);

    let failed = [stream[..3].join("\n"), r#"data: {"type":"error","error":{"code":"moderation_blocked"}}"#.to_owned()];
    let failed = ResponseTemplate::new(200).set_body_raw(failed.join("\n"), "text/event-stream");
    let error = generate(&remote(&responding(failed).await.uri())).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::ContentPolicy, true));
}

#[tokio::test]
async fn an_image_in_another_format_or_size_than_requested_has_a_warning() {
    // The header of a PNG image of 512 by 256 pixels.
    let png = [&PNG[..8], &[0, 0, 0, 13], b"IHDR", &512_u32.to_be_bytes(), &256_u32.to_be_bytes()].concat();
    let image = json!({ "b64_json": base64_simd::STANDARD.encode_to_string(png) });
    let url = json!({ "url": "https://media.example/1" });
    let warnings = async |body: Value, format, size: &str| {
        let server = responding(json_response(200, body)).await;
        let mut spec = generate_spec();
        spec.options.output_format = Some(format);
        spec.options.size = Some(size.parse().unwrap());
        send(&remote(&server.uri()), spec).await.unwrap().metadata.warnings
    };
    // The bytes decide, not the reported values.
    let wrong = json!({ "size": "1024x1024", "output_format": "jpeg", "data": [image, image] });
    assert_eq!(warnings(wrong.clone(), OutputFormat::Png, "512x256").await, Vec::<String>::new());
    assert_eq!(
        warnings(wrong, OutputFormat::Jpeg, "1024x1024").await,
        [
            "2 images have the format png; the request asked for jpeg",
            "2 images have the size 512x256; the request asked for 1024x1024"
        ]
    );
    let reported = json!({ "size": "512x512", "output_format": "png", "data": [url] });
    assert_eq!(warnings(reported.clone(), OutputFormat::Webp, "512x512").await.len(), 1);
    assert_eq!(warnings(reported, OutputFormat::Png, "1:1").await, Vec::<String>::new());
    assert_eq!(warnings(json!({ "data": [url] }), OutputFormat::Webp, "512x512").await, Vec::<String>::new());
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn a_stream_of_the_mock_gateway_is_read() {
    let gateway = lumenfall::testing::MockGateway::start().await.unwrap();
    let mut spec = generate_spec();
    spec.options.extra.insert("stream".into(), true.into());
    spec.options.extra.insert("partial_images".into(), 2.into());
    let (context, reported) = progress();
    let output = gateway.builder().build().unwrap().send(spec.into(), context).await.unwrap();
    assert_eq!((output.images.len(), reported.lock().unwrap().len()), (1, 2));
}
