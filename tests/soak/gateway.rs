//! Crowds of requests and downloads at the mock gateway, with faults.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use lumenfall::images::Saved;
use lumenfall::remote::{RemoteBuilder, RequestFilter, RequestStatus};
use lumenfall::testing::{Fault, MockGateway, PIXEL, Received};
use lumenfall::{Client, Error, Input};

use crate::Figures;

const CONCURRENCY: usize = 64;

/// Sends this many requests. `http` is the HTTP client that the crate uses; `None` is its own.
pub(crate) async fn round(requests: usize, http: Option<reqwest::Client>) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::write(&source, PIXEL).unwrap();
    let gateway = MockGateway::start().await.unwrap();
    let (attempts, download_attempts) = (Attempts::default(), Attempts::default());
    let (is_http1, rule_of_requests) = (http.is_none(), rule(&attempts, request));
    gateway.fault_when(move |request| match rule_of_requests(request) {
        // A server that resets an HTTP/2 stream drops the data that is still queued, so the client may receive nothing of it.
        Some(Fault::ResetInBody) if !is_http1 => Some(Fault::Truncated),
        fault => fault,
    });
    gateway.fault_downloads_when(rule(&download_attempts, download));
    // The client waits this long for a request or download that hangs.
    let wait = Duration::from_secs(4);
    let builder = gateway.builder().first_byte_timeout(wait).idle_timeout(wait);
    let builder = http.into_iter().fold(builder, RemoteBuilder::http_client);
    let remote = builder.build().unwrap();
    let client = Client::new(remote.clone());
    let calls = (0..requests).map(|number| {
        let (client, source) = (client.clone(), source.clone());
        let path = folder.path().join(format!("{number}.png"));
        async move { tokio::spawn(async move { (number, call(&client, number, &source, &path).await) }).await.unwrap() }
    });
    let results: Vec<_> = stream::iter(calls).buffer_unordered(CONCURRENCY).collect().await;
    let count = |attempts: &Attempts, number| attempts.lock().unwrap().get(&number).copied().unwrap_or(0);
    let mut figures = Figures::default();
    for (number, result) in results {
        let (expected, expected_download) = (request(number), download(number));
        figures.requests += 1;
        figures.faults += expected.faults.len();
        let downloads = match (&expected.end, result) {
            (Ok(maybe_billed_attempts), Ok((lost_bills, result))) => {
                assert_eq!(lost_bills, *maybe_billed_attempts, "{number}: {expected:?}");
                let is_saved = is_edit(number) || expected_download.end.is_ok();
                assert_eq!(result.is_ok(), is_saved, "{number}: {expected_download:?}, but {result:?}");
                figures.received += 1;
                figures.saved += usize::from(is_saved);
                if is_edit(number) {
                    0
                } else {
                    figures.faults += expected_download.faults.len();
                    expected_download.attempts
                }
            }
            (Err(maybe_billed), Err(error)) => {
                assert_eq!(error.maybe_billed(), *maybe_billed, "{number}: {expected:?}, but {error:?}");
                figures.reported += usize::from(expected.is_executed && *maybe_billed);
                tracing::info!("{error} {error:?}");
                0
            }
            (_, result) => panic!("{number}: {expected:?}, but {result:?}"),
        };
        assert_eq!(count(&attempts, number), expected.attempts, "{number}: {expected:?}");
        assert_eq!(count(&download_attempts, number), downloads, "{number}: {expected_download:?}");
    }
    let executed = (0..requests).filter(|number| request(*number).is_executed).count();
    let records: Vec<_> = remote.account().requests(RequestFilter::default()).try_collect().await.unwrap();
    let micros: i64 = records.iter().filter_map(|record| record.cost.as_ref()).map(|cost| cost.micros).sum();
    let completed = records.into_iter().filter(|record| record.status == RequestStatus::Completed);
    let users: HashSet<_> = completed.map(|record| record.user.unwrap()).collect();
    assert_eq!(users.len(), executed);
    assert_eq!(micros, 35_000 * executed as i64, "{executed} requests were executed; one was billed twice");
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, figures.saved + 1, "the folder contains the source, one file per image, and no temporary file");
    figures.billed = executed;
    figures
}

/// Requests an image and saves it. Returns the attempts before the last one that may have been billed, and the result
/// of saving.
async fn call(
    client: &Client,
    number: usize,
    source: &Path,
    path: &Path,
) -> Result<(u32, Result<Saved, Error>), Error> {
    let (images, user) = (client.images(), number.to_string());
    if is_edit(number) {
        let images = images.edit(Input::path(source)).user(&user).inline().send().await?;
        return Ok((images.metadata().lost_bills, images[0].save(path).await));
    }
    let images = images.generate("a lighthouse").user(&user).send().await?;
    Ok((images.metadata().lost_bills, images[0].save(path).await))
}

/// The faults of the first attempts of a request or download, and how it ends.
#[derive(Debug)]
struct Scenario {
    faults: Vec<Fault>,
    attempts: usize,
    /// The number of attempts before the image that may have been billed, or whether the error may be billed.
    end: Result<u32, bool>,
    /// Whether the gateway executed and billed the request.
    is_executed: bool,
}

fn scenario(faults: Vec<Fault>, attempts: usize, end: Result<u32, bool>, is_executed: bool) -> Scenario {
    Scenario { faults, attempts, end, is_executed }
}

static WITHOUT_FAULT: LazyLock<Scenario> = LazyLock::new(|| scenario(Vec::new(), 1, Ok(0), true));

static REQUEST_SCENARIOS: LazyLock<[Scenario; 10]> = LazyLock::new(|| {
    let milliseconds = Duration::from_millis;
    [
        scenario(vec![Fault::Status(503); 4], 4, Err(false), false),
        scenario(vec![Fault::Status(503)], 2, Ok(0), true),
        scenario(vec![Fault::RateLimited(milliseconds(5)); 2], 3, Ok(0), true),
        scenario(vec![Fault::Code(502, "ALL_PROVIDERS_EXHAUSTED".into())], 2, Ok(1), true),
        scenario(vec![Fault::Reset], 1, Err(true), true),
        scenario(vec![Fault::ResetInBody], 1, Ok(0), true),
        scenario(vec![Fault::Status(500)], 1, Err(true), false),
        scenario(vec![Fault::Truncated], 1, Ok(0), true),
        scenario(vec![Fault::Hang], 1, Err(true), false),
        scenario(vec![Fault::Drip(milliseconds(2))], 1, Ok(0), true),
    ]
});

static DOWNLOAD_SCENARIOS: LazyLock<[Scenario; 6]> = LazyLock::new(|| {
    [
        scenario(vec![Fault::Status(503)], 2, Ok(0), true),
        scenario(vec![Fault::Reset], 2, Ok(0), true),
        scenario(vec![Fault::ResetInBody], 2, Ok(0), true),
        scenario(vec![Fault::Hang], 2, Ok(0), true),
        scenario(vec![Fault::ResetInBody; 4], 4, Err(false), true),
        // An image of the gateway's own host is requested once more, with the key, which the mock gateway rejects.
        scenario(vec![Fault::Status(403)], 2, Err(false), true),
    ]
});

/// Returns the scenario of a request. 3 of 20 requests have a fault, so that others run at the same time.
fn request(number: usize) -> &'static Scenario {
    match [3, 10, 17].iter().position(|place| number % 20 == *place) {
        Some(place) => &REQUEST_SCENARIOS[(number / 20 * 3 + place) % REQUEST_SCENARIOS.len()],
        None => &WITHOUT_FAULT,
    }
}

/// Returns the scenario of a download. Only requests without a fault have faults in their download.
fn download(number: usize) -> &'static Scenario {
    if number % 20 == 7 { &DOWNLOAD_SCENARIOS[number / 40 % DOWNLOAD_SCENARIOS.len()] } else { &WITHOUT_FAULT }
}

/// Returns whether the request is an edit that asks for bytes, or else a generation that asks for a URL.
fn is_edit(number: usize) -> bool {
    (number / 7).is_multiple_of(2)
}

/// The number of attempts of each request or download at the gateway.
type Attempts = Arc<Mutex<HashMap<usize, usize>>>;

/// Returns a rule for the gateway that counts the attempts and applies the faults of `scenario`.
fn rule(attempts: &Attempts, scenario: fn(usize) -> &'static Scenario) -> impl Fn(&Received) -> Option<Fault> + use<> {
    let attempts = Arc::clone(attempts);
    move |request| {
        let number: usize = request.fields["user"].as_str().unwrap().parse().unwrap();
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(number).or_insert(0);
        *attempt += 1;
        // Responses without a fault take different times.
        let delay = Fault::Delay(Duration::from_millis(number as u64 % 8));
        Some(scenario(number).faults.get(*attempt - 1).cloned().unwrap_or(delay))
    }
}
