//! Many faulted requests and downloads at once: each ends, none is paid twice, nothing is left behind.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod plan;

use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use lumenfall::images::Delivery;
use lumenfall::remote::{Remote, RequestFilter, RequestStatus};
use lumenfall::testing::{MockGateway, PIXEL};
use lumenfall::{Client, Error, Images, Input};
use peak_alloc::PeakAlloc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use self::plan::{Download, Plan, Tries, is_fetched, is_inline, number};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const REQUESTS: usize = 2000;
const WARM_UP: usize = 400;
const AT_ONCE: usize = 64;

/// 2,000 requests, 64 at a time, 15 % of them faulted, and some downloads of the others, after some of the same kind. What
/// those leave behind may be connections and caches; what the others add would be a leak.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_faulted_requests_are_paid_once_and_leave_nothing_behind() {
    round(WARM_UP).await;
    let before = settled().await;
    round(REQUESTS).await;
    let after = settled().await;
    assert_eq!((after.tasks, after.files), (before.tasks, before.files), "{before:?} {after:?}");
    let growth = after.bytes.saturating_sub(before.bytes);
    // A connection more than before may be there; 16 bytes a request may not.
    assert!(growth < 16 * REQUESTS, "{growth} bytes are left by {REQUESTS} requests: {before:?} {after:?}");
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

/// How a call ended.
enum End {
    Saved {
        lost_bills: u32,
    },
    NotMade(Error),
    /// The image was made, and stays at its address.
    NotFetched(Error),
}

async fn round(requests: usize) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::write(&source, PIXEL).unwrap();
    let gateway = MockGateway::start().await.unwrap();
    let (tries, downloads) = (Tries::default(), Tries::default());
    gateway.fault_when(tries.of_requests());
    gateway.fault_downloads_when(downloads.of_downloads());
    // So long is waited for a download that hangs.
    let remote = gateway.builder().idle_timeout(Duration::from_secs(3)).backend().unwrap();
    let client = Client::new(remote.clone());
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    let calls: Vec<_> = (0..requests)
        .map(|number| {
            let (client, turn, source) = (client.clone(), Arc::clone(&turn), source.clone());
            let path = folder.path().join(format!("{number}.png"));
            tokio::spawn(async move {
                let _turn = turn.acquire().await;
                call(&client, number, &source, &path).await.unwrap_or_else(End::NotMade)
            })
        })
        .collect();
    let mut saved = 0;
    for (number, call) in calls.into_iter().enumerate() {
        saved += usize::from(is_saved(number, call.await.unwrap()));
    }
    for number in 0..requests {
        check_tries(number, tries.of(number), downloads.of(number));
    }
    check_account(&remote, (0..requests).filter(|number| Plan::is_executed(Plan::of(*number))).count()).await;
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, saved + 1, "each image is one file beside the source, and no draft of one is left");
}

/// One request of any kind, saved.
async fn call(client: &Client, number: usize, source: &Path, path: &Path) -> Result<End, Error> {
    // What hangs must end; whatever else comes late on a busy machine may take longer.
    let timeout = Duration::from_secs(if Plan::of(number) == Some(Plan::Hang) { 1 } else { 60 });
    let user = number.to_string();
    let generate = || client.images().generate("a lighthouse").user(&user).timeout(timeout);
    let edit = || client.images().edit(Input::path(source)).user(&user).timeout(timeout);
    // In another rhythm than the faults, so that each plan meets each way.
    match (is_inline(number), number / 14 % 2) {
        (true, 0) => Ok(saved(generate().inline().send().await?, path).await),
        (false, 0) => Ok(saved(generate().send().await?, path).await),
        (true, _) => Ok(saved(edit().inline().send().await?, path).await),
        (false, _) => Ok(saved(edit().send().await?, path).await),
    }
}

async fn saved<A: Delivery>(images: Images<A>, path: &Path) -> End {
    match images[0].save(path).await {
        Ok(()) => End::Saved { lost_bills: images.metadata().lost_bills },
        Err(error) => End::NotFetched(error),
    }
}

/// Whether a call that ended as planned has made a file.
fn is_saved(number: usize, end: End) -> bool {
    let (plan, download) = (Plan::of(number), Download::of(number));
    let planned = (Plan::end(plan).1, Download::end(download).1);
    let about = format!("{number}: {plan:?}, {download:?}");
    match end {
        End::NotMade(error) => {
            assert!(!planned.0, "{about} was not made: {error:?}");
            assert_eq!(error.maybe_billed(), plan != Some(Plan::Refused), "{about}: {error:?}");
            false
        }
        End::NotFetched(error) => {
            assert_eq!(planned, (true, false), "{about} was not fetched: {error:?}");
            false
        }
        End::Saved { lost_bills } => {
            assert_eq!(planned, (true, true), "{about} was saved");
            // A try that exhausted all providers may have cost something.
            assert_eq!(lost_bills, u32::from(plan == Some(Plan::Exhausted)), "{about}");
            true
        }
    }
}

/// No request came more often than what provably did not run allows, and no download more often than it must.
fn check_tries(number: usize, tries: usize, downloads: usize) {
    let (plan, download) = (Plan::of(number), Download::of(number));
    // One that hangs is given up by the clock, which may not have let it come so far.
    let gone = plan == Some(Plan::Hang) && tries == 0;
    assert!(gone || tries == Plan::end(plan).0, "{number} came {tries} times: {plan:?}");
    let expected = if Plan::end(plan).1 && is_fetched(number) { Download::end(download).0 } else { 0 };
    assert_eq!(downloads, expected, "downloads of {number}: {plan:?}, {download:?}");
}

/// So many requests were executed by the server's own account, each once.
async fn check_account(remote: &Remote, executed: usize) {
    let filter = RequestFilter { page_size: Some(100), ..RequestFilter::default() };
    let mut completed = HashMap::new();
    let mut cost = 0.0;
    let mut records = pin!(remote.account().requests(filter));
    while let Some(record) = records.try_next().await.unwrap() {
        cost += record.cost.unwrap();
        if record.status == RequestStatus::Completed {
            *completed.entry(number(record.user.as_deref())).or_insert(0) += 1;
        }
    }
    assert!(completed.values().all(|times| *times == 1), "one was executed twice");
    assert_eq!(completed.len(), executed);
    assert!((cost - 0.035 * completed.len() as f64).abs() < 1e-6, "{cost}");
}
