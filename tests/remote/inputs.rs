//! Input images: where they come from, which ones are rejected, and how they are uploaded.

use std::fs::OpenOptions;
use std::future;
use std::net::TcpListener;

use tokio::time::sleep;

use crate::http2;
use crate::support::*;

/// Opening a named pipe would wait until another process writes to it.
#[cfg(unix)]
#[tokio::test]
async fn a_named_pipe_is_rejected_without_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let remote = remote(UNREACHABLE);
    let request = send_edit(&remote, edit_spec([Input::path(&pipe)]));
    let error = tokio::time::timeout(Duration::from_secs(5), request).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Io, Some("image")));
    assert!(error.to_string().contains("pipe.png: it is not a regular file"), "{error}");
}

#[tokio::test]
async fn unusable_images_are_rejected_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(folder.path().join(name), content).unwrap();
        Input::path(folder.path().join(name))
    };
    let mut wrong_mask = edit_spec([Input::bytes(PNG)]);
    wrong_mask.mask = Some(Input::bytes(JPEG));
    for (spec, kind, parameter, fact) in [
        (edit_spec([Input::path("/nowhere/cat.png")]), ErrorKind::Io, "image", "/nowhere/cat.png"),
        (edit_spec([Input::path(folder.path())]), ErrorKind::Io, "image", folder.path().to_str().unwrap()),
        (edit_spec([file("empty.png", b"")]), ErrorKind::InvalidRequest, "image", "empty.png"),
        (edit_spec([file("text.png", b"hello")]), ErrorKind::InvalidRequest, "image", "text.png"),
        (edit_spec([file("truncated.png", b"\x89PN")]), ErrorKind::InvalidRequest, "image", "truncated.png"),
        (edit_spec([file("new.png", b"\0\0\0\x1cftypavif")]), ErrorKind::InvalidRequest, "image", "new.png"),
        (edit_spec([Input::bytes(&b"hello"[..])]), ErrorKind::InvalidRequest, "image", "PNG"),
        (edit_spec([]), ErrorKind::InvalidRequest, "image", ""),
        (wrong_mask, ErrorKind::InvalidRequest, "mask", "PNG"),
    ] {
        let error = send_edit(&remote(UNREACHABLE), spec).await.unwrap_err();
        assert_eq!((error.kind(), error.parameter()), (kind, Some(parameter)), "{fact}");
        assert_eq!((error.maybe_billed(), error.attempts(), error.elapsed()), (false, 0, None));
        assert!(error.to_string().contains(fact), "{error}");
    }
}

/// Over HTTP/2, the error of the connection is only that this client reset the stream.
#[test]
fn a_file_that_shrinks_before_it_is_sent_is_reported_and_was_not_billed() {
    for is_http2 in [false, true] {
        paused(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.png");
            std::fs::write(&path, [PNG, &[7; 100_000]].concat()).unwrap();
            let respond = |body, response, _| async move {
                let _held = (body, response);
                future::pending().await
            };
            let (http2, _) = http2::server(respond).await;
            let server = RawServer::start([Act::Hang(Vec::new())]).await;
            // The file is opened before the connection is established.
            let uri = if is_http2 { &http2 } else { &server.uri };
            let (url, client) = slow_to_connect(uri, 2);
            let client = if is_http2 { client.http2_prior_knowledge() } else { client };
            let builder = builder(&url).http_client(client.build().unwrap());
            let remote = builder.retry(RetryPolicy::default().may_bill_twice()).build().unwrap();
            let shrink = async {
                sleep(Duration::from_secs(1)).await;
                OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
            };
            let edit = send_edit(&remote, edit_spec([Input::path(&path)]));
            let error = tokio::join!(edit, shrink).0.unwrap_err();
            assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Io, false, 1), "{error:?}");
            assert_eq!(error.parameter(), Some("image"));
            assert!(error.to_string().contains("a.png"), "{error}");
        });
    }
}

/// Returns a folder that owns the file, and the path of the file. It is larger than the buffers of a connection.
fn large_file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.png");
    std::fs::write(&path, [PNG, &vec![7; 32 << 20]].concat()).unwrap();
    (folder, path)
}

#[test]
fn an_upload_that_makes_progress_may_take_longer_than_the_idle_timeout() {
    let (_folder, path) = large_file();
    for input in [Input::path(&path), Input::bytes(std::fs::read(&path).unwrap())] {
        paused(async {
            let body = r#"{"total_cost_micros":1,"currency":"USD"}"#;
            let slow = Act::ReadSlowly(Duration::from_secs(1), response("200 OK", "", body));
            let server = RawServer::start([slow]).await;
            let remote = builder(&server.uri).native_url(&server.uri).idle_timeout(Duration::from_secs(8));
            let request = Request::Edit(edit_spec([input]));
            let start = Instant::now();
            remote.build().unwrap().estimate(request, RequestContext::default()).await.unwrap();
            assert!(start.elapsed() >= Duration::from_secs(16), "{:?}", start.elapsed());
        });
    }
}

#[test]
fn an_upload_without_progress_times_out() {
    let (_folder, path) = large_file();
    paused(async {
        // This server never accepts the connection, so only the buffers of the system take data.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let remote = builder(&uri).first_byte_timeout(Duration::from_secs(1)).build().unwrap();
        let start = Instant::now();
        let error = send_edit(&remote, edit_spec([Input::path(&path)])).await.unwrap_err();
        assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
        assert_eq!(start.elapsed().as_secs(), 1);
    });
}

#[tokio::test]
async fn an_input_can_come_from_bytes_a_file_a_reader_or_a_url() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.png"), PNG).unwrap();
    let server = MockServer::start().await;
    on(&server, "GET", "/1.png", None, ResponseTemplate::new(200).set_body_bytes(PNG)).await;
    let client = Client::new(remote(UNREACHABLE));
    for input in [
        Input::bytes(PNG),
        Input::path(folder.path().join("a.png")),
        Input::reader(PNG).await.unwrap(),
        Input::fetch(&client, &format!("{}/1.png", server.uri())).await.unwrap(),
    ] {
        assert_eq!(input.read().await.unwrap(), PNG);
    }
    assert!(!requests(&server).await[0].headers.contains_key("authorization"));
    for url in ["file:///etc/passwd", "not a URL", ""] {
        assert_eq!(Input::fetch(&client, url).await.unwrap_err().kind(), ErrorKind::InvalidResponse);
    }
    assert_eq!(format!("{:?}", Input::bytes(PNG)), format!("Bytes({} bytes)", PNG.len()), "no image data");
}
