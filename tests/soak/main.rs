//! Many faulted requests at once: each ends, none is paid twice, nothing is left behind.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use lumenfall::images::Delivery;
use lumenfall::remote::{Remote, RequestFilter, RequestStatus};
use lumenfall::testing::{Fault, MockGateway, PIXEL, Received};
use lumenfall::{Client, Error, Images, Input};
use peak_alloc::PeakAlloc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const REQUESTS: usize = 2000;
const WARM_UP: usize = 400;
const AT_ONCE: usize = 64;

/// 2,000 requests, 64 at a time, 15 % of them faulted, after some of the same kind. What those leave behind may be
/// connections and caches; what the others add would be a leak.
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

/// The fault of each request by its number and by how many tries it has had: three of twenty have one, so that good and
/// bad requests run together from the first to the last.
fn fault(number: usize, tries: usize) -> Option<Fault> {
    let first = tries == 0;
    Some(match plan(number)? {
        Plan::Refused => Fault::Status(503),
        Plan::Late if first => Fault::Status(503),
        Plan::LimitedTwice if tries < 2 => Fault::RateLimited(Duration::from_millis(5)),
        Plan::LimitedUntil if first => Fault::RateLimitedUntil(SystemTime::now()),
        Plan::Exhausted if first => Fault::Code(502, "ALL_PROVIDERS_EXHAUSTED".into()),
        Plan::Reset => Fault::Reset,
        Plan::ResetInBody => Fault::ResetInBody,
        Plan::Failed => Fault::Status(500),
        Plan::Truncated => Fault::Truncated,
        Plan::Hang => Fault::Hang,
        Plan::Drip => Fault::Drip(Duration::from_millis(2)),
        Plan::OtherDelivery => Fault::OtherDelivery,
        _ => return None,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plan {
    Refused,
    Late,
    LimitedTwice,
    LimitedUntil,
    Exhausted,
    Reset,
    ResetInBody,
    Failed,
    Truncated,
    Hang,
    Drip,
    OtherDelivery,
}

const PLANS: [Plan; 12] = [
    Plan::Refused,
    Plan::Late,
    Plan::LimitedTwice,
    Plan::LimitedUntil,
    Plan::Exhausted,
    Plan::Reset,
    Plan::ResetInBody,
    Plan::Failed,
    Plan::Truncated,
    Plan::Hang,
    Plan::Drip,
    Plan::OtherDelivery,
];

/// Among so many requests there is one of each plan.
const PERIOD: usize = 80;

fn plan(number: usize) -> Option<Plan> {
    let place = [3, 10, 17].iter().position(|place| number % 20 == *place)?;
    Some(PLANS[(number / 20 * 3 + place) % PLANS.len()])
}

impl Plan {
    /// How often the server sees a request, and whether its caller gets images.
    fn end(number: usize) -> (usize, bool) {
        match plan(number) {
            None | Some(Self::Drip | Self::OtherDelivery) => (1, true),
            // The image had come whole within half an answer.
            Some(Self::ResetInBody | Self::Truncated) => (1, true),
            Some(Self::Late | Self::LimitedUntil | Self::Exhausted) => (2, true),
            Some(Self::LimitedTwice) => (3, true),
            Some(Self::Refused) => (4, false),
            // What may have been executed is given up.
            Some(Self::Reset | Self::Failed | Self::Hang) => (1, false),
        }
    }
}

/// Whether the image is asked for within the answer.
fn is_inline(number: usize) -> bool {
    (number / 7).is_multiple_of(2)
}

/// A rule for the gateway that counts the tries of each request.
fn rule() -> impl Fn(&Received) -> Option<Fault> + Send + Sync {
    let tries = Mutex::new(HashMap::new());
    move |request| {
        let number = number(request.fields["user"].as_str());
        let mut tries = tries.lock().unwrap();
        let tries = tries.entry(number).or_insert(0);
        *tries += 1;
        // Without a fault, they take their time, each another.
        fault(number, *tries - 1).or_else(|| Some(Fault::Delay(Duration::from_millis(number as u64 % 8))))
    }
}

fn number(user: Option<&str>) -> usize {
    user.unwrap().parse().unwrap()
}

async fn round(requests: usize) {
    let each = requests / PERIOD;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::write(&source, PIXEL).unwrap();
    let gateway = MockGateway::start().await.unwrap();
    gateway.fault_when(rule());
    let remote = gateway.builder().backend().unwrap();
    let client = Client::new(remote.clone());
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    let calls: Vec<_> = (0..requests)
        .map(|number| {
            let (client, turn, source) = (client.clone(), Arc::clone(&turn), source.clone());
            let path = folder.path().join(format!("{number}.png"));
            tokio::spawn(async move {
                let _turn = turn.acquire().await;
                call(&client, number, &source, &path).await
            })
        })
        .collect();
    let mut lost_bills = 0;
    for (number, call) in calls.into_iter().enumerate() {
        let plan = plan(number);
        match call.await.unwrap() {
            Ok(lost) => {
                assert!(Plan::end(number).1, "{number} was made: {plan:?}");
                lost_bills += lost as usize;
            }
            Err(error) => {
                assert!(!Plan::end(number).1, "{number} failed: {plan:?}: {error:?}");
                assert_eq!(error.maybe_billed(), plan != Some(Plan::Refused), "{plan:?}: {error:?}");
            }
        }
    }
    assert_eq!(lost_bills, each, "a try that exhausted all providers may have cost something");
    check_tries(&gateway, requests);
    // Neither what was refused to the end, nor what failed or hung.
    check_account(&remote, requests - 3 * each).await;
    let made = (0..requests).filter(|number| Plan::end(*number).1).count();
    assert_eq!(made, requests - 4 * each, "what broke off within an answer had its image");
    assert_eq!(files(folder.path()), made + 1, "each image is one file beside the source, and no draft of one is left");
}

/// One request of any kind, saved. Tells how many tries before may have been billed.
async fn call(client: &Client, number: usize, source: &Path, path: &Path) -> Result<u32, Error> {
    // What hangs must end; whatever else comes late on a busy machine may take longer.
    let timeout = Duration::from_secs(if plan(number) == Some(Plan::Hang) { 1 } else { 60 });
    let user = number.to_string();
    let generate = || client.images().generate("a lighthouse").user(&user).timeout(timeout);
    let edit = || client.images().edit(Input::path(source)).user(&user).timeout(timeout);
    // In another rhythm than the faults, so that each plan meets each way.
    match (is_inline(number), number / 14 % 2) {
        (true, 0) => saved(generate().inline().send().await?, path).await,
        (false, 0) => saved(generate().send().await?, path).await,
        (true, _) => saved(edit().inline().send().await?, path).await,
        (false, _) => saved(edit().send().await?, path).await,
    }
}

async fn saved<A: Delivery>(images: Images<A>, path: &Path) -> Result<u32, Error> {
    images[0].save(path).await?;
    Ok(images.metadata().lost_bills)
}

/// No request came more often than what provably did not run allows.
fn check_tries(gateway: &MockGateway, requests: usize) {
    let mut tries = HashMap::new();
    for received in gateway.received() {
        *tries.entry(number(received.fields["user"].as_str())).or_insert(0) += 1;
    }
    for number in 0..requests {
        let (plan, seen) = (plan(number), tries.get(&number).copied().unwrap_or(0));
        // One that hangs is given up by the clock, which may not have let it come so far.
        let gone = plan == Some(Plan::Hang) && seen == 0;
        assert!(gone || seen == Plan::end(number).0, "{number} came {seen} times: {plan:?}");
    }
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

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
