//! Downloads: images at URLs are fetched without the key, resumed after failures, and never composed of different contents.

use futures_util::TryStreamExt;
use wiremock::matchers::{header_exists, method, path};

use crate::support::*;

fn png() -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_bytes(PNG)
}

/// Downloads the file at this URL.
async fn fetch(remote: &Remote, url: &str) -> Result<Vec<u8>, Error> {
    let chunks: Vec<_> = remote.fetch(url).await?.try_collect().await?;
    Ok(chunks.concat())
}

/// A response with this content length, of whose body only these bytes arrive.
fn partial(headers: &str, length: usize, body: &[u8]) -> Act {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    Act::Send([head.as_bytes(), body].concat())
}

/// Each client is dropped before its images are downloaded.
#[tokio::test]
async fn a_download_sends_neither_the_key_nor_additional_headers() {
    let server = with_image(png()).await;
    let builder = builder(&server.uri()).header("x-secret", "canary");
    assert_eq!(generate_inline(&builder.clone().build().unwrap()).await.unwrap()[0].bytes(), PNG);
    let images = generate(&builder.build().unwrap()).await.unwrap();
    assert_eq!(images[0].download().await.unwrap(), PNG);
    let mut requests = requests(&server).await;
    requests.retain(|request| request.method == "GET");
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(!request.headers.contains_key("authorization") && !request.headers.contains_key("x-secret"));
    }
}

#[test]
fn an_image_over_the_size_limit_is_rejected() {
    // Without a content length, the client counts the bytes; with one, it does not start to read.
    let counted = Act::Send([&b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..], &[7; 1001]].concat());
    let announced = Act::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_vec());
    for (act, limit, fits) in [(counted.clone(), 1000, false), (announced, 1000, false), (counted, 1001, true)] {
        paused(async {
            let server = RawServer::start([act]).await;
            let remote = builder(UNREACHABLE).max_response_bytes(limit).build().unwrap();
            match fetch(&remote, &server.uri).await {
                Ok(image) => assert!(fits && image.len() == 1001),
                Err(error) => assert!(!fits && error.to_string().contains("1000"), "{error}"),
            }
        });
    }
}

#[tokio::test]
async fn a_download_follows_redirects_to_http_urls_a_limited_number_of_times() {
    for (location, moved) in [("/moved.png", true), ("?again", false), ("file:///etc/passwd", false)] {
        let server = with_image(ResponseTemplate::new(302).insert_header("location", location)).await;
        on(&server, "GET", "/moved.png", None, png()).await;
        match fetch(&remote(UNREACHABLE), &format!("{}/files/1.png", server.uri())).await {
            Ok(image) => assert!(moved && image == PNG),
            Err(error) => assert_eq!((error.kind(), moved), (ErrorKind::InvalidResponse, false), "{location}"),
        }
    }
}

#[test]
fn a_truncated_download_is_resumed_only_if_the_content_is_surely_the_same() {
    let (one, two, weak) = ("etag: \"1\"\r\n", "etag: \"2\"\r\n", "etag: W/\"1\"\r\n");
    let whole = b"012345678";
    let truncated = |headers| partial(headers, 9, b"0123");
    let busy = Act::Send(response("503 Busy", "", ""));
    let (default, none) = (RetryPolicy::default(), RetryPolicy::none());
    for (acts, retry, failure, attempts) in [
        (vec![truncated(one), truncated(one), partial(one, 9, whole)], &default, None, 3),
        (vec![truncated(one), partial(two, 9, whole)], &default, Some(ErrorKind::InvalidResponse), 2),
        (vec![truncated(one), partial(one, 7, b"0123456")], &default, Some(ErrorKind::InvalidResponse), 2),
        // A weak tag, or none, does not guarantee that the bytes are the same.
        (vec![truncated(weak), partial(weak, 9, whole)], &default, Some(ErrorKind::Connection), 1),
        (vec![truncated(""), partial("", 9, whole)], &default, Some(ErrorKind::Connection), 1),
        // The caller has received nothing yet.
        (vec![partial("", 9, b""), partial(two, 9, whole)], &default, None, 2),
        // All attempts are counted and limited together.
        (vec![truncated(one)], &default, Some(ErrorKind::Connection), 4),
        (vec![truncated(one), busy], &default, Some(ErrorKind::Upstream), 4),
        (vec![truncated(one)], &none, Some(ErrorKind::Connection), 1),
    ] {
        paused(async {
            let server = RawServer::start(acts).await;
            let remote = builder(UNREACHABLE).retry(retry.clone()).build().unwrap();
            let result = fetch(&remote, &server.uri).await;
            if let Err(error) = &result {
                assert!(!error.maybe_billed());
                assert!(error.kind() == ErrorKind::InvalidResponse || error.attempts() == attempts, "{error:?}");
            }
            assert_eq!(result.map_err(|error| error.kind()), failure.map_or(Ok(whole.to_vec()), Err));
            assert_eq!(server.requests(), attempts as usize);
        });
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_fetched_affects_no_other_and_can_be_fetched_later() {
    let files = MockServer::start().await;
    on(&files, "GET", "/1.png", None, png()).await;
    let [good, late] = ["/1.png", "/late.png?sig=canary"].map(|path| format!("{}{path}", files.uri()));
    let server = responding(json_response(200, with_urls(&[&late, &good]))).await;
    let some = generate_inline(&remote(&server.uri())).await.unwrap();
    assert_eq!((some.len(), some[0].bytes()), (1, &PNG.into()));
    assert!(some.metadata().warnings[0].contains("image 1"), "{some:?}");
    assert!(!format!("{some:?}").contains("canary"), "{some:?}");

    let response = json_response(200, with_urls(&[&late, &late])).insert_header("X-Lumenfall-Request-Id", "req_9");
    let remote = remote(&responding(response).await.uri());
    let error = generate_inline(&remote).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed_attempts()), (ErrorKind::NotFound, 1));
    assert_eq!((error.request_id(), error.unfetched_urls()), (Some("req_9"), &[late.clone(), late.clone()][..]));
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");

    on(&files, "GET", "/late.png", None, png()).await;
    assert_eq!(some.unfetched()[0].url(), Some(&*late));
    assert_eq!(some.unfetched()[0].download().await.unwrap(), PNG);
    let input = Input::fetch(&Client::new(remote), &error.unfetched_urls()[0]).await.unwrap();
    assert_eq!(input.read().await.unwrap(), PNG);
}

#[test]
fn earlier_attempts_that_may_have_been_billed_are_counted_if_no_image_can_be_fetched() {
    paused(async {
        let exhausted = response("502 Bad Gateway", "", r#"{"error":{"code":"ALL_PROVIDERS_EXHAUSTED"}}"#);
        let success = response("200 OK", "", with_urls(&[UNREACHABLE]));
        let server = RawServer::start([Act::Send(exhausted), Act::Send(success)]).await;
        let error = generate_inline(&remote(&server.uri)).await.unwrap_err();
        assert_eq!((error.maybe_billed_attempts(), error.made_nothing()), (2, false));
    });
}

#[tokio::test]
async fn a_data_url_is_decoded() {
    let url = format!("data:image/png;base64,{}", png_base64());
    assert_eq!(fetch(&remote(UNREACHABLE), &url).await.unwrap(), PNG);
    let error = fetch(&remote(UNREACHABLE), "data:image/png;base64,!").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidResponse);
}

/// A storage service that has no image yet, or a proxy, may send such bodies.
#[tokio::test]
async fn a_body_that_is_not_an_image_is_rejected() {
    for body in ["", "\n \n", "\n<!doctype HTML>", "\u{feff}<html><body>", r#"{"error":"soon"}"#] {
        let server = with_image(ResponseTemplate::new(200).set_body_string(body)).await;
        let remote = remote(&server.uri());
        let error = generate_inline(&remote).await.unwrap_err();
        assert_eq!((error.kind(), error.unfetched_urls().len()), (ErrorKind::InvalidResponse, 1));
        let images = generate(&remote).await.unwrap();
        assert_eq!(images[0].download().await.unwrap_err().kind(), ErrorKind::InvalidResponse);
    }
    // Other models behind the same API may draw vector images.
    let drawing = "<?xml version='1.0'?><svg/>";
    let server = with_image(ResponseTemplate::new(200).set_body_string(drawing)).await;
    assert_eq!(generate_inline(&remote(&server.uri())).await.unwrap()[0].bytes(), drawing);
}

/// Some servers protect their own images with the key. No other server may receive it.
#[tokio::test]
async fn an_image_of_the_service_itself_is_requested_again_with_the_key_if_it_is_rejected_without() {
    let own = MockServer::start().await;
    let other = MockServer::start().await;
    let with_key = |at: &str| Mock::given(method("GET")).and(path(at)).and(header_exists("authorization"));
    for (server, at) in [(&own, "/401.png"), (&own, "/403.png"), (&other, "/401.png")] {
        with_key(at).respond_with(png()).mount(server).await;
        let status: u16 = at[1..4].parse().unwrap();
        on(server, "GET", at, None, ResponseTemplate::new(status).set_body_string("without a key")).await;
    }
    let elsewhere = format!("{}/401.png", other.uri());
    let redirect = ResponseTemplate::new(307).insert_header("location", elsewhere.as_str());
    on(&own, "GET", "/redirect.png", None, redirect).await;
    on(&own, "GET", "/never.png", None, ResponseTemplate::new(403).set_body_string("the first response")).await;
    let remote = builder(&format!("{}/v1", own.uri())).header("x-tenant", "secret-tenant").build().unwrap();

    for url in ["/401.png", "/403.png"] {
        assert_eq!(fetch(&remote, &format!("{}{url}", own.uri())).await.unwrap(), PNG);
    }
    for url in [elsewhere.clone(), format!("{}/redirect.png", own.uri())] {
        assert_eq!(fetch(&remote, &url).await.unwrap_err().status(), Some(401));
    }
    let error = fetch(&remote, &format!("{}/never.png", own.uri())).await.unwrap_err();
    assert!(error.to_string().contains("the first response"), "{error}");
    let is_secret = |request: &wiremock::Request| {
        ["authorization", "x-tenant"].iter().any(|name| request.headers.contains_key(*name))
    };
    let sent = requests(&own).await;
    assert_eq!(sent.iter().map(is_secret).collect::<Vec<_>>(), [false, true, false, true, false, false, true]);
    assert!(!requests(&other).await.iter().any(is_secret));
}
