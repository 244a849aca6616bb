//! Many faulted requests at once: each ends, none is paid twice, nothing is left behind.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lumenfall::RetryPolicy;
use lumenfall::testing::{Fault, MockGateway};
use peak_alloc::PeakAlloc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const REQUESTS: usize = 2000;
const AT_ONCE: usize = 64;

/// Three rounds of 2,000 requests, 64 at a time, 15 % of them faulted. What the first leaves behind may be
/// connections and caches; what the others add would be a leak.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_faulted_requests_are_paid_once_and_leave_nothing_behind() {
    let mut left = Vec::new();
    for _ in 0..3 {
        round().await;
        left.push(settled().await);
    }
    let [first, .., last] = left.as_slice() else { return assert_eq!(left.len(), 3) };
    assert_eq!((last.tasks, last.files), (first.tasks, first.files), "{left:?}");
    let growth = last.bytes.saturating_sub(first.bytes);
    assert!(growth < 64 << 10, "{growth} bytes are left by {} requests: {left:?}", 2 * REQUESTS);
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Left {
    bytes: usize,
    tasks: usize,
    /// Open files and sockets.
    files: usize,
}

/// What is there once connections that were closed have noticed it.
async fn settled() -> Left {
    let mut last = None;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = Left {
            bytes: ALLOCATOR.current_usage(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        };
        if last.replace(now) == Some(now) {
            return now;
        }
    }
    last.unwrap()
}

async fn round() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = MockGateway::start().await.unwrap();
    for i in 0..REQUESTS * 15 / 100 {
        gateway.fault_next(match i % 6 {
            0 => Fault::Status(503),
            1 => Fault::RateLimited(Duration::from_millis(5)),
            2 => Fault::Reset,
            3 => Fault::ResetInBody,
            4 => Fault::Status(500),
            _ => Fault::Garbage,
        });
    }
    // A retry draws from the same faults: however unlucky, a request must not run out of tries.
    let client = gateway.builder().retry(RetryPolicy::default().max_retries(100)).build().unwrap();
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    let calls: Vec<_> = (0..REQUESTS)
        .map(|i| {
            let (client, turn, path) = (client.clone(), Arc::clone(&turn), folder.path().join(format!("{i}.png")));
            tokio::spawn(async move {
                let _turn = turn.acquire().await;
                let call = client.images().generate("a lighthouse").user(i.to_string()).inline();
                let images = call.send().await?;
                images[0].save(path).await?;
                Ok::<_, lumenfall::Error>(images.len())
            })
        })
        .collect();
    let (mut made, mut failed) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(images) => made += images,
            Err(error) => {
                assert!(error.maybe_billed(), "only what may have been executed is given up: {error:?}");
                failed += 1;
            }
        }
    }
    // Four of the six faults are ambiguous: none of those is retried.
    assert_eq!((made, failed), (1800, 200));
    let mut tries = HashMap::new();
    for received in gateway.received() {
        *tries.entry(received.fields["user"].to_string()).or_insert(0) += 1;
    }
    // The other two did not run, and each took one more try.
    assert_eq!((tries.len(), tries.values().sum::<i32>()), (2000, 2100));
    assert_eq!(files(folder.path()), 1800, "each image is one file, and no draft of one is left");
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
