//! Input images: those that cannot be sent, and those that take long.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use lumenfall::backend::{Backend, Request, RequestContext};
use lumenfall::{Error, ErrorKind, Input};
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::{Folder, JPEG, ONE_ADDRESS, PNG, answering, builder, edit_spec, json, remote, requests};

async fn refusal(image: Input) -> Error {
    let server = answering(json(200, ONE_ADDRESS)).await;
    let error = remote(&server).edit(edit_spec(vec![image]), RequestContext::default()).await.unwrap_err();
    assert!(requests(&server).await.is_empty());
    assert!(!error.maybe_billed());
    assert_eq!((error.parameter(), error.attempts(), error.elapsed()), (Some("image"), 0, None));
    error
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let error = refusal(Input::path("/nowhere/cat.png")).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = error.to_string();
    assert!(message.contains("/nowhere/cat.png"), "{message}");
    assert!(message.ends_with("; check the path and its permissions"), "{message}");
}

#[tokio::test]
async fn a_folder_an_empty_file_and_a_file_that_is_no_image_are_named() {
    let folder = Folder::new();
    let error = refusal(Input::path(folder.path(""))).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().ends_with("it is no file; check the path and its permissions"), "{error}");
    const CONVERT: &str = "; convert it to PNG first";
    for (name, content, remedy) in [
        ("empty.png", &b""[..], "; give a whole image"),
        ("text.png", b"hello", CONVERT),
        ("cut.png", b"\x89PN", CONVERT),
        ("new.png", b"\0\0\0\x1cftypavif", CONVERT),
    ] {
        let error = refusal(Input::path(folder.file(name, content))).await;
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains(name) && error.to_string().ends_with(remedy), "{error}");
    }
}

/// A fault on this side is neither the connection's nor a reason to think of a bill.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_is_told() {
    let folder = Folder::new();
    let path = folder.file("a.png", &[PNG, &vec![7; 64 << 20]].concat());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let requests = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut piece = vec![0; 1 << 16];
        stream.read_exact(&mut piece).unwrap();
        file.set_len(1000).unwrap();
        while stream.read(&mut piece).is_ok_and(|length| length > 0) {}
        listener.set_nonblocking(true).unwrap();
        1 + usize::from(listener.accept().is_ok())
    });
    let remote = builder(&uri).backend().unwrap();
    let error = remote.edit(edit_spec(vec![Input::path(&path)]), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed(), error.attempts()), (ErrorKind::Io, false, 1), "{error}");
    assert!(error.to_string().contains("a.png to its end: it became shorter"), "{error}");
    assert_eq!(error.parameter(), Some("image"));
    assert_eq!(requests.join().unwrap(), 1);
}

/// Nothing is heard of the service while it takes the files, and that is no silence.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_take_longer_than_a_silence() {
    let folder = Folder::new();
    let image = [PNG, &vec![7; 32 << 20]].concat();
    let path = folder.file("a.png", &image);
    for input in [Input::path(&path), Input::bytes(image)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut piece = vec![0; 1 << 20];
            let (mut received, mut total) = (0, usize::MAX);
            while received < total {
                let length = stream.read(&mut piece).unwrap();
                assert!(length > 0, "it was given up after {received} bytes");
                if received == 0 {
                    let head = String::from_utf8_lossy(&piece[..length]).to_ascii_lowercase();
                    let after = head.split("content-length: ").nth(1).unwrap();
                    total = head.find("\r\n\r\n").unwrap()
                        + 4
                        + after.split('\r').next().unwrap().parse::<usize>().unwrap();
                }
                received += length;
                std::thread::sleep(Duration::from_millis((length as u64 * 150) >> 20));
            }
            let body = r#"{"total_cost_micros":1,"currency":"USD"}"#;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let remote = builder(&uri).native_url(&uri).idle_timeout(Duration::from_millis(2500)).backend().unwrap();
        let started = Instant::now();
        remote.estimate(Request::Edit(edit_spec(vec![input])), RequestContext::default()).await.unwrap();
        assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
        server.join().unwrap();
    }
    // One that stands still is given up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let remote = builder(&uri).first_byte_timeout(Duration::from_secs(1)).backend().unwrap();
    let error = remote.edit(edit_spec(vec![Input::path(&path)]), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.maybe_billed()), (ErrorKind::Timeout, true), "{error}");
}

#[tokio::test]
async fn bytes_that_are_no_image_are_refused() {
    let error = refusal(Input::bytes(&b"hello"[..])).await;
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(
        error.to_string(),
        "the image given as bytes is no PNG, JPEG, WebP or GIF image; convert it to PNG first"
    );
}

#[tokio::test]
async fn an_edit_without_images_and_a_mask_that_is_no_png_are_refused() {
    let server = answering(json(200, ONE_ADDRESS)).await;
    let error = remote(&server).edit(edit_spec(vec![]), RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("image")));

    let mut spec = edit_spec(vec![Input::bytes(PNG)]);
    spec.mask = Some(Input::bytes(JPEG));
    let error = remote(&server).edit(spec, RequestContext::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::InvalidRequest, Some("mask")));
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn an_input_can_be_read_whole() {
    let folder = Folder::new();
    assert_eq!(Input::path(folder.file("a.png", PNG)).read().await.unwrap(), PNG);
    assert_eq!(Input::bytes(PNG).read().await.unwrap(), PNG);
}

#[tokio::test]
async fn an_input_comes_from_a_reader_or_an_address_without_the_key() {
    assert_eq!(Input::reader(PNG).await.unwrap().read().await.unwrap(), PNG);

    let server = MockServer::start().await;
    Mock::given(path("/1.png")).respond_with(ResponseTemplate::new(200).set_body_bytes(PNG)).mount(&server).await;
    let client = builder("http://127.0.0.1:9").build().unwrap();
    let input = Input::fetch(&client, &format!("{}/1.png", server.uri())).await.unwrap();
    assert_eq!(input.read().await.unwrap(), PNG);
    assert!(!requests(&server).await[0].headers.contains_key("authorization"));
    for address in ["file:///etc/passwd", "no address", ""] {
        assert_eq!(Input::fetch(&client, address).await.unwrap_err().kind(), ErrorKind::InvalidResponse);
    }
}

#[test]
fn an_inputs_debug_print_holds_no_image() {
    assert_eq!(format!("{:?}", Input::bytes(PNG)), format!("Bytes({} bytes)", PNG.len()));
}
