//! Calls without an async runtime.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lumenfall::blocking::Wait;
use lumenfall::testing::MockBackend;
use lumenfall::{Client, ErrorKind};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A server without any runtime, whose connections are kept.
fn serve(answer: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
            thread::spawn(move || {
                let mut request = [0; 65536];
                // Requests are so small that each comes in one piece.
                while let Ok(length @ 1..) = stream.read(&mut request) {
                    let body = answer(&String::from_utf8_lossy(&request[..length]));
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.write_all((head + body).as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

fn client(body: &'static str) -> Client {
    Client::builder().api_key("k").base_url(serve(move |_| body)).build().unwrap()
}

const ANSWER: &str = r#"{"data":[{"b64_json":"aGVsbG8="}]}"#;

#[test]
fn a_call_over_http_is_waited_for_and_its_image_saved() {
    let images = client(ANSWER).images().generate("a lighthouse").inline().send().wait().unwrap();
    assert_eq!(images[0].bytes(), "hello");
    let path = std::env::temp_dir().join(format!("lumenfall-blocking-{}.png", std::process::id()));
    images[0].save(&path).wait().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn waiting_within_a_runtime_is_safe() {
    for runtime in [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()] {
        let mut runtime = runtime;
        runtime.enable_all().build().unwrap().block_on(async {
            let images = client(ANSWER).images().generate("a lighthouse").inline().send().wait().unwrap();
            assert_eq!(images[0].bytes(), "hello");
        });
    }
}

/// A connection that an `.await` opened stands still while its runtime's thread waits.
#[test]
fn a_wait_takes_no_connection_of_the_runtime() {
    for mut runtime in [tokio::runtime::Builder::new_current_thread(), tokio::runtime::Builder::new_multi_thread()] {
        let task = async {
            let server = MockServer::start().await;
            let answer = ResponseTemplate::new(200).set_body_raw(ANSWER, "application/json");
            Mock::given(any()).respond_with(answer).mount(&server).await;
            let client = Client::builder().api_key("k").base_url(server.uri()).timeout(Duration::from_secs(5));
            let client = client.build().unwrap();
            for _ in 0..3 {
                client.images().generate("a lighthouse").inline().send().await.unwrap();
                client.images().generate("a lighthouse").inline().send().wait().unwrap();
            }
        };
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(runtime.spawn(task)).unwrap();
    }
}

/// What goes on beside a call that was waited for takes no connection of the runtime either.
#[test]
fn a_job_that_is_waited_for_in_vain_is_cancelled() {
    let (asked, cancelled) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&cancelled);
    let address = serve(move |request| match request {
        _ if request.starts_with("PUT") => {
            count.fetch_add(1, Ordering::SeqCst);
            "{}"
        }
        _ if request.starts_with("POST") => r#"{"request_id":"j1"}"#,
        // The first job ends, the other does not.
        _ if request.contains("/status") && asked.fetch_add(1, Ordering::SeqCst) > 0 => r#"{"status":"IN_PROGRESS"}"#,
        _ if request.contains("/status") => r#"{"status":"COMPLETED"}"#,
        _ => r#"{"images":[{"url":"https://x.example/1"}]}"#,
    });
    let fal = Client::builder().api_key("k").base_url(address).fal().unwrap();
    let client = Client::new(fal.poll_interval(Duration::from_millis(10)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        client.images().generate("a lighthouse").send().await.unwrap();
        let request = client.images().generate("a lighthouse").timeout(Duration::from_secs(4));
        assert_eq!(request.send().wait().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(cancelled.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn many_threads_wait_at_once() {
    let mock = MockBackend::new().delay(Duration::from_millis(50));
    let client = Client::new(mock.clone());
    let started = Instant::now();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || client.images().generate("a lighthouse").inline().send().wait().unwrap().len())
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 1));
    assert!(started.elapsed() < Duration::from_millis(350), "{:?}", started.elapsed());
}

#[test]
fn errors_come_through() {
    let mock = MockBackend::new();
    mock.fail_next(lumenfall::Error::new(ErrorKind::RateLimited, "slow down"));
    let error = Client::new(mock).images().generate("a lighthouse").send().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
}

/// A task's turns are counted, and one that has used them up must not be told to wait for a runtime that this call holds up.
#[test]
fn a_call_within_a_task_may_take_many_turns() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let many_turns = async {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for i in 0..1000 {
                sender.send(i).unwrap();
                receiver.recv().await.unwrap();
            }
            Ok(1000)
        };
        assert_eq!(many_turns.wait().unwrap(), 1000);
    });
}
