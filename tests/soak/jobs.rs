//! Crowds of jobs at a server that imitates fal and Replicate, with faults.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lumenfall::remote::{Fal, Replicate};
use lumenfall::testing::PIXEL;
use lumenfall::{Client, Error};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::Fault::{Closed, Lost, Status, Throttled};
use crate::Figures;

pub(crate) const KEY: &str = "canary-of-the-key";
const CONCURRENCY: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Service {
    Fal,
    Replicate,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The request is not executed.
    Status(u16),
    /// The request is not executed, and may be sent again after 5 ms.
    Throttled,
    /// The connection is closed before the request is executed.
    Closed,
    /// The request is executed, but the connection is closed before the response.
    Lost,
}

/// The faults of a job, and how it ends.
#[derive(Debug)]
struct Scenario {
    submissions: &'static [Fault],
    polls: &'static [Fault],
    downloads: &'static [Fault],
    /// Whether the image is returned, or else whether the error may be billed.
    end: Result<(), bool>,
    jobs: usize,
}

const WITHOUT_FAULT: Scenario = Scenario { submissions: &[], polls: &[], downloads: &[], end: Ok(()), jobs: 1 };

static SCENARIOS: LazyLock<[Scenario; 8]> = LazyLock::new(|| {
    let submissions = |submissions, end, jobs| Scenario { submissions, end, jobs, ..WITHOUT_FAULT };
    [
        submissions(&[Status(503)], Ok(()), 1),
        submissions(&[Throttled, Throttled], Ok(()), 1),
        submissions(&[Status(503), Status(503), Status(503), Status(503)], Err(false), 0),
        submissions(&[Status(500)], Err(true), 0),
        submissions(&[Lost], Err(true), 1),
        Scenario { polls: &[Status(500), Status(502)], ..WITHOUT_FAULT },
        Scenario { polls: &[Closed, Closed], ..WITHOUT_FAULT },
        Scenario { downloads: &[Status(503), Closed], ..WITHOUT_FAULT },
    ]
});

/// Returns the scenario of a job. 1 of 5 jobs has a fault.
fn scenario(number: usize) -> &'static Scenario {
    if number % 5 == 3 { &SCENARIOS[number / 5 % SCENARIOS.len()] } else { &WITHOUT_FAULT }
}

/// Sends this many requests to one of the services.
pub(crate) async fn round(requests: usize, service: Service) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Arc::new(Server { service, address: listener.local_addr().unwrap(), counts: Mutex::default() });
    let task = tokio::spawn(Arc::clone(&server).run(listener));
    let (url, interval) = (format!("http://{}", server.address), Duration::from_millis(5));
    let client = match service {
        Service::Fal => Client::new(Fal::builder().api_key(KEY).base_url(url).poll_interval(interval).build().unwrap()),
        Service::Replicate => {
            Client::new(Replicate::builder().api_key(KEY).base_url(url).poll_interval(interval).build().unwrap())
        }
    };
    let calls = (0..requests).map(|number| {
        let (client, path) = (client.clone(), folder.path().join(format!("{number}.png")));
        async move { tokio::spawn(async move { (number, call(&client, number, &path).await) }).await.unwrap() }
    });
    let results: Vec<_> = stream::iter(calls).buffer_unordered(CONCURRENCY).collect().await;
    let mut figures = Figures::default();
    let counts = server.counts.lock().unwrap();
    for (number, result) in results {
        let expected = scenario(number);
        let jobs = counts.get(&("job", number)).copied().unwrap_or(0);
        assert_eq!(jobs, expected.jobs, "{service:?} {number} was billed {jobs} times: {expected:?}");
        let end = result.as_ref().map(|_| ()).map_err(Error::maybe_billed);
        assert_eq!(end, expected.end, "{service:?} {number}: {expected:?}, but {result:?}");
        figures.requests += 1;
        figures.faults += expected.submissions.len() + expected.polls.len() + expected.downloads.len();
        figures.billed += jobs;
        figures.received += usize::from(result.is_ok());
        figures.reported += usize::from(jobs > 0 && end == Err(true));
        if let Err(error) = result {
            tracing::info!("{error} {error:?}");
        }
    }
    let wrong: Vec<_> = counts.keys().filter(|(kind, _)| ["cancel", "wrong key"].contains(kind)).collect();
    assert!(wrong.is_empty(), "{service:?}: {wrong:?}");
    figures.saved = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(figures.saved, figures.received);
    task.abort();
    figures
}

async fn call(client: &Client, number: usize, path: &Path) -> Result<(), Error> {
    let images = client.images().generate(number.to_string()).send().await?;
    assert_eq!(images.metadata().lost_bills, 0);
    images[0].save(path).await?;
    assert_eq!(tokio::fs::read(path).await.unwrap(), PIXEL);
    Ok(())
}

struct Server {
    service: Service,
    address: SocketAddr,
    /// How often each kind of request was sent for each job.
    counts: Mutex<HashMap<(&'static str, usize), usize>>,
}

type Response = hyper::Response<Full<Bytes>>;

impl Server {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let server = Arc::clone(&self);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let server = Arc::clone(&server);
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                    server.respond(&head, &body)
                }
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    }

    /// Counts a request of this kind, and returns the number of earlier ones.
    fn count(&self, kind: &'static str, number: usize) -> usize {
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry((kind, number)).or_insert(0);
        *count += 1;
        *count - 1
    }

    /// Responds to a request. An error closes the connection.
    fn respond(&self, head: &http::request::Parts, body: &[u8]) -> io::Result<Response> {
        let path = head.uri.path();
        let has_key = head.headers.get("authorization").is_some_and(|value| value.to_str().unwrap().ends_with(KEY));
        if let Some(number) = path.strip_prefix("/files/") {
            let number = number.strip_suffix(".png").unwrap().parse().unwrap();
            if has_key {
                self.count("wrong key", number);
            }
            return self.faulty("download", number, scenario(number).downloads, || respond(200, PIXEL.to_vec()));
        }
        if head.method == "POST" && !path.contains("cancel") {
            let body: Value = serde_json::from_slice(body).unwrap();
            let prompt = body["input"].get("prompt").unwrap_or(&body["prompt"]);
            let number = prompt.as_str().unwrap().parse().unwrap();
            if !has_key {
                self.count("wrong key", number);
            }
            return self.faulty("submission", number, scenario(number).submissions, || {
                self.count("job", number);
                respond(201, json!({ "id": number.to_string(), "request_id": number.to_string() }).to_string())
            });
        }
        let number = path.split('/').find_map(|part| part.parse().ok()).unwrap();
        if path.contains("cancel") {
            self.count("cancel", number);
        }
        let url = format!("http://{}/files/{number}.png", self.address);
        if self.service == Service::Fal && !path.ends_with("/status") {
            return respond(200, json!({ "images": [{ "url": url }] }).to_string());
        }
        self.faulty("poll", number, scenario(number).polls, || {
            let has_ended = self.count("state", number) > 1;
            let body = match (self.service, has_ended) {
                (Service::Fal, true) => json!({ "status": "COMPLETED" }),
                (Service::Fal, false) => json!({ "status": "IN_PROGRESS" }),
                (Service::Replicate, true) => json!({ "status": "succeeded", "output": [url] }),
                (Service::Replicate, false) => json!({ "status": "processing" }),
            };
            respond(200, body.to_string())
        })
    }

    /// Responds with the next fault, or executes the request.
    fn faulty(
        &self,
        kind: &'static str,
        number: usize,
        faults: &[Fault],
        execute: impl Fn() -> io::Result<Response>,
    ) -> io::Result<Response> {
        match faults.get(self.count(kind, number)) {
            None => execute(),
            Some(Status(status)) => respond(*status, "{}"),
            Some(Throttled) => {
                let mut response = respond(429, "{}")?;
                response.headers_mut().insert("retry-after-ms", http::HeaderValue::from_static("5"));
                Ok(response)
            }
            Some(Closed) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Lost) => {
                execute()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }
}

fn respond(status: u16, body: impl Into<Bytes>) -> io::Result<Response> {
    hyper::Response::builder().status(status).body(Full::new(body.into())).map_err(io::Error::other)
}
