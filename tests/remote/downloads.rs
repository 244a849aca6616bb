//! What becomes of images that lie at addresses, and of the files they are saved to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lumenfall::backend::{Backend, RequestContext};
use lumenfall::{Address, Client, ErrorKind, Images, Input, RetryPolicy};
use serde_json::json;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{
    Act, Folder, PNG, RawServer, answering, builder, generate, generate_inline, generate_spec, json as answer,
    own_http_client, png_base64, remote, requests, with_addresses, with_image,
};

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
    // Announced, it is not begun.
    let announced =
        RawServer::start(Act::SayAndHang(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_vec())).await;
    let small = builder("http://127.0.0.1:9").max_response_bytes(1000).backend().unwrap();
    let error = small.fetch(&announced.uri).await.err().unwrap();
    assert!(error.to_string().contains("larger than the limit of 1000 bytes"), "{error}");
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
async fn a_download_that_breaks_off_leaves_no_file_and_changes_none() {
    let folder = Folder::new();
    let head = b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 1000\r\n\r\nhalf".to_vec();
    let files = RawServer::start(Act::Say(head)).await;
    let body = json!({ "data": [{ "url": format!("{}/1.png?sig=canary", files.uri) }] }).to_string();
    let images = generate(&remote(&answering(answer(200, &body)).await)).await.unwrap();
    for before in [None, Some("what was there before")] {
        let path = folder.path("a.png");
        before.iter().for_each(|before| std::fs::write(&path, before).unwrap());
        let error = images[0].save(&path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        assert!(!error.maybe_billed());
        assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), before);
    }
    assert_eq!(folder.names(), ["a.png"]);
    assert_eq!(files.requests(), 8, "it is begun again");
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
        // Nothing tells whether the second would be the same: a weak tag is of what is seen, not of the bytes.
        (
            answer("etag: W/\"1\"\r\n", b"0123", 9),
            answer("etag: W/\"1\"\r\n", b"012345678", 9),
            ErrorKind::Connection,
            1,
        ),
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
async fn a_download_is_written_while_it_comes() {
    let folder = Folder::new();
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    let endless = Act::SayAndHang([&head[..], PNG].concat());
    let files = RawServer::start(endless).await;
    let images = generate(&remote(&with_addresses(&[&files.uri]).await)).await.unwrap();
    let path = folder.path("a.png");
    let written = async {
        let draft = |name: &String| name.ends_with(".part") && std::fs::read(folder.path(name)).unwrap() == PNG;
        while !folder.names().iter().any(draft) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        ended = images[0].save(&path) => panic!("{ended:?}"),
        () = written => {}
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("{:?}", folder.names()),
    }
    assert!(folder.names().is_empty(), "the draft goes with the call");
}

/// A storage that has nothing yet, and somebody between.
#[tokio::test]
async fn what_is_no_image_is_not_taken_for_one() {
    let folder = Folder::new();
    let path = folder.file("a.png", b"what was there before");
    for (nothing, told) in [
        (ResponseTemplate::new(204), "empty"),
        (ResponseTemplate::new(200), "empty"),
        (ResponseTemplate::new(200).set_body_string("\n \n"), "empty"),
        (ResponseTemplate::new(200).set_body_string("\n<!doctype HTML>"), "a page, no image"),
        (ResponseTemplate::new(200).set_body_string("\u{feff}<html><body>"), "a page, no image"),
        (answer(200, r#"{"error":"soon"}"#), "JSON, no image"),
    ] {
        let server = with_image(nothing).await;
        let error = generate_inline(&remote(&server)).await.unwrap_err();
        assert_eq!((error.kind(), error.addresses().len()), (ErrorKind::InvalidResponse, 1));
        assert!(error.to_string().contains(told), "{error}");
        let images = generate(&remote(&server)).await.unwrap();
        assert_eq!(images[0].save(&path).await.unwrap_err().kind(), ErrorKind::InvalidResponse);
        assert_eq!(images[0].download().await.unwrap_err().kind(), ErrorKind::InvalidResponse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "what was there before");
    }
    // Not of this model, but of others behind the same API.
    let drawing = "<?xml version='1.0'?><svg/>";
    let server = with_image(ResponseTemplate::new(200).set_body_string(drawing)).await;
    assert_eq!(generate_inline(&remote(&server)).await.unwrap()[0].bytes(), drawing);
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
async fn images_outlive_the_client_that_made_them() {
    let server = with_image(ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let backend: Arc<dyn Backend> = Arc::new(remote(&server));
    let output = backend.generate(generate_spec(), RequestContext::default()).await.unwrap();
    let images = Images::<Address>::receive(backend, output).await.unwrap();
    let image = images.into_iter().next().unwrap();
    assert_eq!(image.download().await.unwrap(), PNG);
}
