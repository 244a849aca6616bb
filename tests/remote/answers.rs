//! What is made of an answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lumenfall::ErrorKind;
use serde_json::json;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{
    Act, Folder, ONE_ADDRESS, PNG, RawServer, answering, builder, generate, generate_inline, gzip_bomb, json as answer,
    own_http_client, png_base64, remote, requests,
};

/// These tests are built with reqwest's own means to unfold it, as an application may be.
#[tokio::test]
async fn a_compressed_answer_is_unfolded_only_by_a_client_of_the_callers_own_and_up_to_the_limit() {
    let bomb = ResponseTemplate::new(200).insert_header("content-encoding", "gzip").set_body_bytes(gzip_bomb());
    let server = answering(bomb).await;
    let builder = builder(&server.uri()).max_response_bytes(64 * 1024);
    let error = generate(&builder.clone().backend().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("is not JSON"), "{error}");
    assert!(!requests(&server).await[0].headers.contains_key("accept-encoding"));

    let own = own_http_client().build().unwrap();
    let error = generate(&builder.http_client(own).backend().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("larger than the limit of 65536 bytes"), "{error}");
    assert_eq!(requests(&server).await[1].headers["accept-encoding"], "gzip");
}

#[tokio::test]
async fn the_published_answer_is_read() {
    let server = answering(answer(200, ONE_ADDRESS)).await;
    let images = generate(&remote(&server)).await.unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].url(), Some("https://media.example/1.png"));
    assert_eq!(images[0].revised_prompt(), Some("a cat"));
    assert_eq!(images.metadata().created, Some(1_234_567_890));
    assert_eq!(images.metadata().backend, "remote");
}

#[tokio::test]
async fn the_expiry_of_an_address_is_known() {
    let signed = r#"{"created":1,"data":[{"url":"https://media.example/1.png?Expires=1795507200&Signature=s"}]}"#;
    let images = generate(&remote(&answering(answer(200, signed)).await)).await.unwrap();
    assert_eq!(images[0].expires_at(), Some(UNIX_EPOCH + Duration::from_secs(1_795_507_200)));

    let started = SystemTime::now();
    let undated = r#"{"data":[{"url":"https://media.example/1.png"},{"b64_json":"aGVsbG8="}]}"#;
    let images = generate(&remote(&answering(answer(200, undated)).await)).await.unwrap();
    let lifetime = images[0].expires_at().unwrap().duration_since(started).unwrap();
    assert!((3600..3660).contains(&lifetime.as_secs()), "{lifetime:?}");
    assert_eq!(images[1].expires_at(), None);

    let now = started.duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (created, from) in [(now - 600, now - 600), (0, now), (now * 1000, now), (u64::MAX, now)] {
        let body = json!({ "created": created, "data": [{ "url": "https://media.example/1.png" }] }).to_string();
        let images = generate(&remote(&answering(answer(200, &body)).await)).await.unwrap();
        let expires = images[0].expires_at().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((from + 3600..from + 3660).contains(&expires), "{created}: {expires}");
    }
}

#[tokio::test]
async fn metadata_and_headers_tell_of_the_making() {
    let body = json!({
        "id": "gen_1", "data": [{ "url": "https://media.example/1.png", "seed": 7 }],
        "metadata": { "model": "m", "executed_model": "fal/m", "provider": "fal", "provider_name": "fal.ai",
                      "cost": 0.02, "cost_currency": "usd" }
    });
    let template = answer(200, &body.to_string())
        .insert_header("X-Lumenfall-Request-Id", "req_1")
        .insert_header("Set-Cookie", "session=canary");
    let images = generate(&remote(&answering(template).await)).await.unwrap();
    let metadata = images.metadata();
    assert_eq!(metadata.provider.as_deref(), Some("fal"));
    assert_eq!(metadata.model.as_deref(), Some("fal/m"));
    assert_eq!(metadata.request_id.as_deref(), Some("req_1"));
    let cost = metadata.cost.as_ref().unwrap();
    assert_eq!((cost.amount, cost.currency.as_str()), (0.02, "USD"));
    assert_eq!(images[0].seed(), Some(7));
    assert_eq!(metadata.headers.get("X-Lumenfall-Request-Id"), Some("req_1"));
    assert!(metadata.headers.iter().any(|header| header == ("content-type", "application/json")));
    assert!(!format!("{metadata:?}").contains("canary"));

    let headers = answer(200, ONE_ADDRESS)
        .insert_header("X-Lumenfall-Provider", "replicate")
        .insert_header("X-Lumenfall-Model", "replicate/m");
    let images = generate(&remote(&answering(headers).await)).await.unwrap();
    assert_eq!(images.metadata().provider.as_deref(), Some("replicate"));
    assert_eq!(images.metadata().model.as_deref(), Some("replicate/m"));
}

#[tokio::test]
async fn all_of_n_images_are_returned_as_bytes() {
    let data: Vec<_> = (0..10).map(|_| json!({ "b64_json": png_base64() })).collect();
    let server = answering(answer(200, &json!({ "data": data }).to_string())).await;
    let images = generate_inline(&remote(&server)).await.unwrap();
    assert_eq!(images.len(), 10);
    assert!(images.iter().all(|image| image.bytes() == PNG && image.media_type() == Some("image/png")));
    let request = &requests(&server).await[0];
    assert_eq!(request.body_json::<serde_json::Value>().unwrap()["response_format"], "b64_json");
}

#[tokio::test]
async fn a_missing_created_and_unknown_fields_do_not_fail_the_call() {
    let body = r#"{"data":[{"url":"https://media.example/1.png","style":"new"}],"background":"plaid"}"#;
    let images = generate(&remote(&answering(answer(200, body)).await)).await.unwrap();
    assert_eq!(images.metadata().created, None);
    assert_eq!(images[0].url(), Some("https://media.example/1.png"));
}

#[tokio::test]
async fn bytes_that_came_instead_of_an_address_are_kept() {
    let folder = Folder::new();
    let body = json!({ "data": [{ "b64_json": png_base64() }] }).to_string();
    let images = generate(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    assert_eq!(images[0].url(), None);
    assert_eq!(images[0].download().await.unwrap(), PNG);
    images[0].save(folder.path("a.png")).await.unwrap();
    assert_eq!(std::fs::read(folder.path("a.png")).unwrap(), PNG);
}

#[tokio::test]
async fn the_limit_is_256_mib_where_nobody_sets_another() {
    for (announced, refused) in [(256 << 20, false), ((256 << 20) + 1, true)] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n{{");
        let server = RawServer::start(Act::Say(head.into())).await;
        let error = generate(&builder(&server.uri).backend().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string().contains("larger than the limit of 268435456 bytes"), refused, "{error}");
    }
}

#[tokio::test]
async fn images_that_came_whole_outlive_a_connection_that_breaks() {
    let body = format!(r#"{{"data":[{{"b64_json":"{0}"}},{{"b64_json":"{0}"#, png_base64());
    let head = "HTTP/1.1 200 OK\r\nx-request-id: req_9\r\ncontent-length: 99999\r\n\r\n";
    let second = Duration::from_secs(1);
    let answer = || [head, &body].concat().into_bytes();
    for (act, idle, timeout) in [
        (Act::Say(answer()), 60 * second, 60 * second),
        (Act::SayAndReset(answer()), 60 * second, 60 * second),
        (Act::SayAndHang(answer()), second, 60 * second),
        (Act::SayAndHang(answer()), 60 * second, second),
    ] {
        let server = RawServer::start(act).await;
        let remote = builder(&server.uri).idle_timeout(idle).timeout(timeout).backend().unwrap();
        let images = generate_inline(&remote).await.unwrap();
        assert_eq!((images.len(), images[0].bytes()), (1, &PNG.into()));
        let metadata = images.metadata();
        assert!(metadata.warnings[0].starts_with("the answer broke after 1 images"), "{:?}", metadata.warnings);
        assert_eq!((metadata.request_id.as_deref(), server.requests()), (Some("req_9"), 1));
    }
}

#[tokio::test]
async fn an_answer_without_images_is_an_error_that_may_have_been_billed() {
    for body in [r#"{"data":[]}"#, r#"{"data":null}"#, "{}", "", "null", r#"{"data":[{"url":null}]}"#] {
        let error = generate(&remote(&answering(answer(200, body)).await)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{body}");
        assert!(error.maybe_billed(), "{body}");
    }
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_before_it_is_read() {
    let body = json!({ "data": [{ "b64_json": "QUJD".repeat(1000) }] }).to_string();
    let server = answering(answer(200, &body)).await;
    let remote = builder(&server.uri()).max_response_bytes(3000).backend().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(error.to_string().contains("3000"), "{error}");
}

#[tokio::test]
async fn a_free_answer_over_the_limit_cannot_have_been_billed() {
    let server = MockServer::start().await;
    let list = json!({ "data": [], "padding": "x".repeat(4000) }).to_string();
    Mock::given(path("/models")).respond_with(answer(200, &list)).mount(&server).await;
    let remote = builder(&server.uri()).max_response_bytes(3000).backend().unwrap();
    let error = remote.models().list().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
    assert!(!error.maybe_billed());
}

#[tokio::test]
async fn no_room_is_made_for_an_impossible_length() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", i64::MAX);
    let server = RawServer::start(Act::Say([head.as_bytes(), br#"{"data":[{"b64_json":"aGVsbG8="#].concat())).await;
    let remote = builder(&server.uri).max_response_bytes(usize::MAX).backend().unwrap();
    let error = generate(&remote).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.maybe_billed());
}
