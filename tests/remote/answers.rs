//! What is made of an answer.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{FutureExt, StreamExt};
use lumenfall::backend::{Backend, RequestContext};
use lumenfall::{Address, Client, ErrorKind, Images, Input, RetryPolicy};
use serde_json::json;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{
    Act, Folder, ONE_ADDRESS, PNG, RawServer, answering, builder, generate, generate_inline, generate_spec, gzip_bomb,
    json as answer, own_http_client, remote, requests,
};

/// `PNG` as base64.
fn png_base64() -> String {
    base64_simd::STANDARD.encode_to_string(PNG)
}

/// A server whose answers point to an image on itself.
async fn with_image(image: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let address = format!("{}/files/1.png?signature=canary", server.uri());
    let body = json!({ "data": [{ "url": address }] }).to_string();
    Mock::given(method("POST")).respond_with(answer(200, &body)).mount(&server).await;
    Mock::given(path("/files/1.png")).respond_with(image).mount(&server).await;
    server
}

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
async fn an_address_that_came_instead_of_bytes_is_fetched() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let images = generate_inline(&remote(&server)).await.unwrap();
    assert_eq!(images[0].bytes(), PNG);
}

#[tokio::test]
async fn a_download_sends_no_key_and_saves_whole() {
    let folder = Folder::new();
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let remote = builder(&server.uri()).header("x-secret", "canary").backend().unwrap();
    let images = generate(&remote).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);
    let path = folder.file("a.png", b"what was there before");
    images[0].save(&path).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), PNG);
    assert_eq!(folder.names(), ["a.png"]);
    for request in &requests(&server).await[1..] {
        assert!(!request.headers.contains_key("authorization") && !request.headers.contains_key("x-secret"));
    }
}

#[tokio::test]
async fn a_download_goes_through_the_configured_client_and_its_proxy() {
    let proxy = MockServer::start().await;
    let body = json!({ "data": [{ "url": "http://media.invalid/1.png" }] }).to_string();
    Mock::given(method("POST")).respond_with(answer(200, &body)).mount(&proxy).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200).set_body_bytes(PNG)).mount(&proxy).await;
    let remote = builder("http://api.invalid/v1").proxy(proxy.uri()).backend().unwrap();
    let images = generate(&remote).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);

    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let own = own_http_client().user_agent("mine").build().unwrap();
    let images = generate(&builder(&server.uri()).http_client(own).backend().unwrap()).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);
    assert_eq!(requests(&server).await[1].headers["user-agent"], "mine");
}

#[tokio::test]
async fn an_image_larger_than_the_limit_is_refused() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(vec![7; 1001])).await;
    for (limit, fits) in [(1000, false), (1001, true)] {
        let remote = builder(&server.uri()).max_response_bytes(limit).backend().unwrap();
        let images = generate(&remote).await.unwrap();
        match images[0].download().await {
            Ok(image) => assert!(fits && image.len() == 1001),
            Err(error) => {
                assert!(!fits && error.to_string().contains("larger than the limit of 1000 bytes"), "{error}")
            }
        }
    }
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
async fn a_download_follows_redirects_but_not_for_ever() {
    let server = with_image(ResponseTemplate::new(302).insert_header("location", "/moved.png")).await;
    Mock::given(path("/moved.png")).respond_with(ResponseTemplate::new(200).set_body_bytes(PNG)).mount(&server).await;
    let images = generate(&remote(&server)).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);

    for target in ["?again", "file:///etc/passwd"] {
        let server = with_image(ResponseTemplate::new(302).insert_header("location", target)).await;
        let images = generate(&remote(&server)).await.unwrap();
        let error = images[0].download().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidResponse, "{error}");
    }
}

#[tokio::test]
async fn an_expired_address_is_not_found_and_prints_no_signature() {
    let folder = Folder::new();
    let server = with_image(ResponseTemplate::new(403).set_body_string("expired: canary")).await;
    let images = generate(&remote(&server)).await.unwrap();
    let error = images[0].save(folder.path("a.png")).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::NotFound, Some(403)));
    assert!(!error.maybe_billed());
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    assert!(folder.names().is_empty());
}

#[tokio::test]
async fn a_download_that_breaks_off_leaves_no_file() {
    let folder = Folder::new();
    let head = b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 1000\r\n\r\nhalf".to_vec();
    let files = RawServer::start(Act::Say(head)).await;
    let body = json!({ "data": [{ "url": format!("{}/1.png?sig=canary", files.uri) }] }).to_string();
    let images = generate(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    let error = images[0].save(folder.path("a.png")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    assert!(!error.maybe_billed());
    assert!(folder.names().is_empty());
    assert_eq!(files.requests(), 4, "it is begun again");
}

/// A server whose answer has these addresses.
async fn with_addresses(addresses: &[&str]) -> MockServer {
    let data: Vec<_> = addresses.iter().map(|address| json!({ "url": address })).collect();
    let body = json!({ "data": data }).to_string();
    answering(answer(200, &body).insert_header("X-Lumenfall-Request-Id", "req_9")).await
}

#[tokio::test]
async fn a_download_that_broke_off_is_begun_again() {
    let folder = Folder::new();
    let head = "HTTP/1.1 200 OK\r\netag: \"1\"\r\nconnection: close\r\ncontent-length:";
    let whole = [format!("{head} {}\r\n\r\n", PNG.len()).as_bytes(), PNG].concat();
    for inline in [true, false] {
        let broken = Act::Say(whole[..whole.len() - 3].to_vec());
        let files = RawServer::start_with(vec![broken.clone(), broken, Act::Say(whole.clone())]).await;
        let server = with_addresses(&[&files.uri]).await;
        if inline {
            assert_eq!(generate_inline(&remote(&server)).await.unwrap()[0].bytes(), PNG);
        } else {
            let path = folder.path("a.png");
            generate(&remote(&server)).await.unwrap()[0].save(&path).await.unwrap();
            assert_eq!(std::fs::read(path).unwrap(), PNG);
        }
        assert_eq!(files.requests(), 3);
    }
    assert_eq!(folder.names(), ["a.png"]);
}

#[tokio::test]
async fn no_download_is_pieced_together_of_two_contents() {
    let answer = |tag: &str, body: &[u8], length: usize| {
        let head = format!("HTTP/1.1 200 OK\r\n{tag}content-length: {length}\r\nconnection: close\r\n\r\n");
        Act::Say([head.as_bytes(), body].concat())
    };
    let (one, two) = ("etag: \"1\"\r\n", "etag: \"2\"\r\n");
    for (first, second, kind, requests) in [
        (answer(one, b"0123", 9), answer(two, b"012345678", 9), ErrorKind::InvalidResponse, 2),
        (answer(one, b"0123", 9), answer(one, b"0123456", 7), ErrorKind::InvalidResponse, 2),
        // Nothing tells whether the second would be the same.
        (answer("", b"0123", 9), answer("", b"012345678", 9), ErrorKind::Connection, 1),
    ] {
        let files = RawServer::start_with(vec![first, second]).await;
        let images = generate(&remote(&with_addresses(&[&files.uri]).await)).await.unwrap();
        assert_eq!(images[0].download().await.unwrap_err().kind(), kind);
        assert_eq!(files.requests(), requests);
    }
    // Where nothing has come yet, anything may.
    let files = RawServer::start_with(vec![answer("", b"", 9), answer(two, b"012345678", 9)]).await;
    let images = generate(&remote(&with_addresses(&[&files.uri]).await)).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), "012345678");
}

#[tokio::test]
async fn the_tries_of_a_download_are_counted_once() {
    let head = "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 9\r\nconnection: close\r\n\r\n0123";
    let busy = Act::Say(b"HTTP/1.1 503 Busy\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n".to_vec());
    let files = RawServer::start_with(vec![Act::Say(head.into()), busy]).await;
    let images = generate(&remote(&with_addresses(&[&files.uri]).await)).await.unwrap();
    let error = images[0].download().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts(), files.requests()), (ErrorKind::Upstream, 4, 4));
}

#[tokio::test]
async fn the_time_of_a_download_is_not_multiplied_by_beginning_again() {
    // Each answer drips for longer than the whole download may take, and the policy is kept.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec();
    let slow = RawServer::start(Act::Drip([head.clone(), vec![b'x'; 900]].concat(), Duration::from_millis(20))).await;
    let server = with_addresses(&[&slow.uri]).await;
    let remote = builder(&server.uri()).timeout(Duration::from_secs(1)).backend().unwrap();
    let started = Instant::now();
    let error = generate(&remote).await.unwrap()[0].download().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(slow.requests(), 1);

    let broken = RawServer::start(Act::Say(head)).await;
    let server = with_addresses(&[&broken.uri]).await;
    let once = builder(&server.uri()).retry(RetryPolicy::none()).backend().unwrap();
    generate(&once).await.unwrap()[0].download().await.unwrap_err();
    assert_eq!(broken.requests(), 1);
}

#[tokio::test]
async fn an_image_that_cannot_be_fetched_costs_no_other_and_can_be_fetched_later() {
    let folder = Folder::new();
    let files = MockServer::start().await;
    let file = ResponseTemplate::new(200).set_body_bytes(PNG);
    Mock::given(path("/1.png")).respond_with(file.clone()).mount(&files).await;
    let [good, late] = ["/1.png", "/late.png?sig=canary"].map(|path| format!("{}{path}", files.uri()));
    let some = generate_inline(&remote(&with_addresses(&[&late, &good]).await)).await.unwrap();
    assert_eq!((some.len(), some[0].bytes()), (1, &PNG.into()));
    let warnings = &some.metadata().warnings;
    assert!(warnings[0].starts_with("image 1 is still at its address: cannot fetch"), "{warnings:?}");
    assert!(!format!("{some:?}").contains("canary"), "{some:?}");

    let server = with_addresses(&[&late, &late]).await;
    let remote = remote(&server);
    let error = generate_inline(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed_tries()), (ErrorKind::NotFound, 1));
    assert_eq!(error.request_id(), Some("req_9"));
    assert_eq!(error.addresses(), [late.clone(), late.clone()]);
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");

    Mock::given(path("/late.png")).respond_with(file).mount(&files).await;
    assert_eq!(some.unfetched()[0].url(), Some(&*late));
    some.unfetched()[0].save(folder.path("late.png")).await.unwrap();
    assert_eq!(std::fs::read(folder.path("late.png")).unwrap(), PNG);
    let input = Input::fetch(&Client::new(remote), &error.addresses()[0]).await.unwrap();
    assert_eq!(input.read().await.unwrap(), PNG);
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
async fn a_bill_before_an_answer_that_cannot_be_fetched_is_counted() {
    let server = MockServer::start().await;
    let exhausted = answer(502, r#"{"error":{"code":"ALL_PROVIDERS_EXHAUSTED"}}"#);
    Mock::given(method("POST")).respond_with(exhausted).up_to_n_times(1).mount(&server).await;
    let body = json!({ "data": [{ "url": format!("{}/gone.png", server.uri()) }] }).to_string();
    Mock::given(method("POST")).respond_with(answer(200, &body)).mount(&server).await;
    let error = generate_inline(&remote(&server)).await.unwrap_err();
    assert_eq!((error.maybe_billed_tries(), error.made_nothing()), (2, false));
}

#[tokio::test]
async fn an_image_within_its_address_is_saved_like_any_other() {
    let remote = remote(&with_addresses(&[]).await);
    let address = format!("data:image/png;base64,{}", png_base64());
    let mut stream = remote.fetch(&address).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), PNG);
    assert!(stream.next().await.is_none());
    assert_eq!(remote.fetch("data:image/png;base64,!").await.err().unwrap().kind(), ErrorKind::InvalidResponse);
}

#[tokio::test]
async fn the_deadline_of_a_call_bounds_the_fetching_of_its_images() {
    let files = RawServer::start(Act::SayAndHang(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())).await;
    let server = with_addresses(&[&files.uri]).await;
    let callers = remote(&server);
    let clients = builder(&server.uri()).timeout(Duration::from_millis(500)).backend().unwrap();
    for (remote, timeout) in [(callers, Some(Duration::from_millis(500))), (clients, None)] {
        let mut request = Client::new(remote).images().generate("a cat").inline();
        request = timeout.into_iter().fold(request, |request, timeout| request.timeout(timeout));
        let started = Instant::now();
        let error = request.send().await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_save_that_is_dropped_at_any_time_leaves_no_file() {
    let folder = Folder::new();
    let body = json!({ "data": [{ "b64_json": png_base64() }] }).to_string();
    let images = generate_inline(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    for polls in 0..60 {
        let mut save = Box::pin(images[0].save(folder.path("a.png")));
        for _ in 0..polls % 4 {
            if (&mut save).now_or_never().is_some() {
                break;
            }
            std::thread::yield_now();
        }
    }
    // What had begun to open a file comes to its end.
    let started = Instant::now();
    while folder.names().iter().any(|name| name.ends_with(".part")) {
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", folder.names());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_name_of_the_longest_length_can_be_saved() {
    let folder = Folder::new();
    let body = json!({ "data": [{ "b64_json": png_base64() }] }).to_string();
    let images = generate_inline(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    let name = "a".repeat(251) + ".png";
    images[0].save(folder.path(&name)).await.unwrap();
    assert_eq!(folder.names(), [name]);
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_named() {
    let body = json!({ "data": [{ "b64_json": png_base64() }] }).to_string();
    let images = generate_inline(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    let error = images[0].save("/nowhere/a.png").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("/nowhere/a.png"), "{error}");
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

#[tokio::test]
async fn images_outlive_the_client_that_made_them() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let backend: Arc<dyn Backend> = Arc::new(remote(&server));
    let output = backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
    let images = Images::<Address>::receive(backend, output).await.unwrap();
    let image = images.into_iter().next().unwrap();
    assert_eq!(image.download().await.unwrap(), PNG);
}
