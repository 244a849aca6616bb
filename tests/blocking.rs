//! Calls without an async runtime.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use lumenfall::blocking::Wait;
use lumenfall::remote::{Fal, Remote};
use lumenfall::testing::MockBackend;
use lumenfall::{Client, ErrorKind};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, mpsc, oneshot};
use tokio::time;
use wiremock::matchers::{method, path_regex};
use wiremock::{Mock, MockServer, ResponseTemplate};

fn runtimes() -> [Runtime; 2] {
    [Builder::new_current_thread(), Builder::new_multi_thread()]
        .map(|mut builder| builder.enable_all().build().unwrap())
}

/// Starts a server on a separate thread, and returns it with a client that uses it.
fn start() -> (MockServer, Client) {
    let body = json!({ "data": [{ "b64_json": "aGVsbG8=" }] });
    let [runtime, _] = runtimes();
    let server = runtime.block_on(async {
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(&server).await;
        server
    });
    let remote = Remote::builder().api_key("k").base_url(server.uri()).timeout(Duration::from_secs(5)).build().unwrap();
    (server, Client::new(remote))
}

#[test]
fn a_call_without_a_runtime_returns_an_image_and_saves_it() {
    let (_server, client) = start();
    let images = client.images().generate("a lighthouse").inline().send().wait().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lighthouse.png");
    images[0].save(&path).wait().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
}

/// A connection that an `.await` has opened makes no progress while `.wait()` blocks the thread of its runtime.
#[test]
fn a_wait_within_a_runtime_does_not_use_the_connections_of_the_runtime() {
    for runtime in runtimes() {
        let (_server, client) = start();
        let task = async move {
            for _ in 0..3 {
                client.images().generate("a lighthouse").inline().send().await.unwrap();
                client.images().generate("a lighthouse").inline().send().wait().unwrap();
            }
        };
        runtime.block_on(runtime.spawn(task)).unwrap();
    }
}

/// The cancellation runs in the background, and must not use the connections of the runtime either.
#[tokio::test]
async fn a_job_that_times_out_is_cancelled() {
    let server = MockServer::start().await;
    let mount = async |verb, path, body, times| {
        let response = ResponseTemplate::new(200).set_body_json(body);
        let mock = Mock::given(method(verb)).and(path_regex(path)).respond_with(response);
        mock.up_to_n_times(times).mount(&server).await;
    };
    mount("POST", ".*", json!({ "request_id": "j1" }), u64::MAX).await;
    // The first job completes, the second one does not.
    mount("GET", ".*/status", json!({ "status": "COMPLETED" }), 1).await;
    mount("GET", ".*/status", json!({ "status": "IN_PROGRESS" }), u64::MAX).await;
    mount("GET", ".*", json!({ "images": [{ "url": "https://x.example/1" }] }), u64::MAX).await;
    mount("PUT", ".*", json!({}), u64::MAX).await;
    let fal = Fal::builder().api_key("k").base_url(server.uri()).poll_interval(Duration::from_millis(10));
    let client = Client::new(fal.build().unwrap());
    client.images().generate("a lighthouse").send().await.unwrap();
    let request = client.images().generate("a lighthouse").timeout(Duration::from_secs(2));
    assert_eq!(request.send().wait().unwrap_err().kind(), ErrorKind::Timeout);
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.iter().filter(|request| request.method == "PUT").count(), 1);
}

#[test]
fn many_threads_wait_at_the_same_time() {
    let client = Client::new(MockBackend::new().delay(Duration::from_millis(1)));
    // No thread continues before all of them wait.
    let barrier = Arc::new(Barrier::new(8));
    let threads = [(); 8].map(|()| {
        let (client, barrier) = (client.clone(), Arc::clone(&barrier));
        let call = async move {
            barrier.wait().await;
            client.images().generate("a lighthouse").inline().send().await
        };
        thread::spawn(|| call.wait().unwrap().len())
    });
    assert_eq!(threads.map(|thread| thread.join().unwrap()), [1; 8]);
}

/// tokio makes a task yield after a number of operations, which would never end while `.wait()` blocks its runtime.
#[tokio::test]
async fn a_call_within_a_task_may_run_many_operations() {
    let call = async {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for i in 0..1000 {
            sender.send(i).unwrap();
            receiver.recv().await.unwrap();
        }
        Ok(1000)
    };
    assert_eq!(call.wait().unwrap(), 1000);
}

/// Both calls park the same thread. The inner call must not consume the notification of the outer one.
#[test]
fn a_call_is_notified_while_its_thread_waits_for_another() {
    let (sender, mut receiver) = oneshot::channel();
    let mut nested = Some(async move {
        sender.send(7).unwrap();
        time::sleep(Duration::from_millis(20)).await;
        Ok(())
    });
    let outer = poll_fn(|context| {
        let result = Pin::new(&mut receiver).poll(context);
        if let Some(nested) = nested.take() {
            nested.wait().unwrap();
        }
        result.map(Ok)
    });
    assert_eq!(outer.wait().unwrap(), Ok(7));
}
