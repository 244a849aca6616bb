//! Crowds of concurrent requests and downloads with faults, over HTTP/1.1, HTTP/2 and job services: each one ends, no paid image
//! is lost, none is billed twice, no secret is logged, and no resource leaks. `docs/faults.md` has the figures; `UPDATE_DOCS=1`
//! writes them.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod gateway;
mod jobs;
mod logs;

use std::time::Duration;

use peak_alloc::PeakAlloc;
use tokio::runtime::Handle;

use self::jobs::Service;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const WARM_UP: usize = 400;
const REQUESTS: usize = 2000;
const HEADING: &str = "## Crowds\n";
const INTRODUCTION: &str = "
The soak test (`cargo test --features reqwest-client,testing --test soak`) sends crowds of 64 requests at the same time, with injected faults in submissions,
responses, polls and downloads. A *lost* response is one that the service billed and the client could not receive; each of
them was reported with `Error::maybe_billed()`. All logs of the program at the level `DEBUG` are searched for keys and signatures.
Over HTTP/2, resets inside of a response body are injected in downloads only.

| crowd | requests | faults | billed | images received | lost and reported | billed twice | secrets in logs |
|---|---|---|---|---|---|---|---|
";

/// What happened to the requests of a crowd.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    requests: usize,
    faults: usize,
    /// The requests that the service executed. The crowds check that none was executed twice.
    billed: usize,
    /// The requests whose image the client returned.
    received: usize,
    /// The images that were saved in a file. Others can be downloaded later.
    saved: usize,
    /// The billed requests without an image whose error says that they may have been billed.
    reported: usize,
}

impl Figures {
    fn row(&self, crowd: &str) -> String {
        let Self { requests, faults, billed, received, saved: _, reported } = self;
        assert_eq!(*billed, received + reported, "{crowd}: a paid image was lost: {self:?}");
        format!("| {crowd} | {requests} | {faults} | {billed} | {received} | {reported} | 0 | 0 |\n")
    }
}

/// Compares the resources after short rounds with those after long rounds. Connections and caches may remain from the
/// first rounds; everything that the second rounds add is a leak.
#[tokio::test(flavor = "multi_thread")]
async fn crowds_with_faults_lose_no_paid_image_are_billed_once_and_leak_nothing() {
    logs::install();
    rounds(WARM_UP).await;
    let before = resources().await;
    let table = rounds(REQUESTS).await;
    let after = resources().await;
    assert_eq!((after.tasks, after.files), (before.tasks, before.files), "{before:?} {after:?}");
    let growth = after.bytes.saturating_sub(before.bytes);
    // Allows for one more idle connection.
    assert!(growth < 16 * REQUESTS, "{growth} more bytes after {REQUESTS} requests: {before:?} {after:?}");
    let (events, secrets) = logs::counts();
    assert!(events > 10 * REQUESTS, "only {events} events were logged");
    assert_eq!(secrets, 0, "of {events} events");
    compare(&(INTRODUCTION.to_owned() + &table));
}

/// Runs all crowds, and returns the rows of the table.
async fn rounds(requests: usize) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http2 = reqwest::Client::builder().http2_prior_knowledge().retry(reqwest::retry::never()).no_proxy();
    let one = gateway::round(requests, None).await.row("gateway, HTTP/1.1");
    let two = gateway::round(requests, Some(http2.build().unwrap())).await.row("gateway, HTTP/2");
    let fal = jobs::round(requests / 4, Service::Fal).await.row("fal, jobs");
    let replicate = jobs::round(requests / 4, Service::Replicate).await.row("Replicate, jobs");
    [one, two, fal, replicate].concat()
}

/// Compares the figures with the documentation.
fn compare(figures: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (faults, documented) = page.split_once(HEADING).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, [faults, HEADING, figures].concat()).unwrap();
    } else {
        assert_eq!(documented, figures);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Resources {
    bytes: usize,
    tasks: usize,
    /// Open files and sockets.
    files: usize,
}

/// Returns the resources in use as soon as they are stable, because connections close in the background.
async fn resources() -> Resources {
    let mut last = None;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = Resources {
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
