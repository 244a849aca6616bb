//! Every fault, and what becomes of it: kept as a table in `docs/faults.md`.
//!
//! The test writes the table and compares it with the file. After a change that is meant, run it with
//! `UPDATE_DOCS=1` and read the difference.

use std::time::{Duration, SystemTime};

use lumenfall::backend::{Backend, Output, RequestContext};
use lumenfall::remote::{ClientBuilder, Remote};
use lumenfall::{Error, Input, RetryPolicy};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::support::{Act, ONE_ADDRESS, PNG, RawServer, builder, edit_spec, generate_spec, gzip_bomb, own_http_client};

const INTRODUCTION: &str = "\
# Faults

What becomes of a paid call when something breaks. A test makes each fault on a loopback server, for a generation and for an
edit, which end alike, writes this table and compares it (`UPDATE_DOCS=1 cargo test --test remote matrix` updates it). One
retry is allowed in each case. *POSTs* is how
many requests the server saw: by default, and where the caller opted in with `RetryPolicy::may_bill_twice()`. *Tries* counts those,
too, that never reached it. *Asked to wait* is what the error tells of the service's wish; it is obeyed up to
`RetryPolicy::max_wait`.

| fault | outcome | may have been billed | tries | POSTs | POSTs with `may_bill_twice` | asked to wait |
|---|---|---|---|---|---|---|
";

/// A head with the body's length, and the body.
fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Act {
    let (body, length) = (body.as_ref(), body.as_ref().len());
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    Act::Say([head.as_bytes(), body].concat())
}

fn failure(status: &str, code: &str) -> Act {
    answer(status, "", format!(r#"{{"error":{{"message":"no","type":"t","code":"{code}"}}}}"#))
}

fn faults() -> Vec<(&'static str, Act)> {
    let ok = |headers: &str, body: &str| answer("200 OK", headers, body);
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{\"data\":[".as_bytes().to_vec();
    let endless = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"data\":[                    ".to_vec();
    let broken_503 = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9999\r\n\r\n<html>";
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    let slow_down = |header: &str| answer("429 Too Many Requests", header, "");
    vec![
        ("the connection closes before the request is read", Act::Greet(Vec::new())),
        ("reset after the request, before the head", Act::SayAndReset(Vec::new())),
        ("silence after the request", Act::SayAndHang(Vec::new())),
        ("reset after the head", Act::SayAndReset(cut[..40].to_vec())),
        ("reset in the middle of the body", Act::SayAndReset(cut.clone())),
        ("closed in the middle of the body", Act::Say(cut.clone())),
        ("silence in the middle of the body", Act::SayAndHang(cut.clone())),
        ("a byte now and then, beyond the deadline", Act::Drip(cut, Duration::from_millis(50))),
        ("a body without end", Act::Forever(endless)),
        ("a body over the limit", ok("", &" ".repeat(100_000))),
        ("JSON that ends too early", ok("", r#"{"data":[{"url":"https://"#)),
        ("a page of HTML with status 200", ok("content-type: text/html\r\n", "<html></html>")),
        ("an error with status 200", ok("", r#"{"error":{"message":"no GPU","code":"BUSY"}}"#)),
        ("JSON under a wrong content type", ok("content-type: text/html\r\n", ONE_ADDRESS)),
        ("a compressed body that nobody asked for", answer("200 OK", "content-encoding: gzip\r\n", gzip_bomb())),
        ("no image in the answer", ok("", r#"{"data":[]}"#)),
        ("100 Continue, then the answer", before_ok("100 Continue")),
        ("103 Early Hints, then the answer", before_ok("103 Early Hints")),
        ("204", answer("204 No Content", "", "")),
        ("302 to another host", answer("302 Found", "location: http://127.0.0.1:9/\r\n", "")),
        ("303 to another host", answer("303 See Other", "location: http://127.0.0.1:9/\r\n", "")),
        ("307 to another host", answer("307 Temporary Redirect", "location: http://127.0.0.1:9/\r\n", "")),
        ("400 `INVALID_REQUEST`", failure("400 Bad Request", "INVALID_REQUEST")),
        ("400 `CONTENT_POLICY_VIOLATION`", failure("400 Bad Request", "CONTENT_POLICY_VIOLATION")),
        ("401", failure("401 Unauthorized", "AUTHENTICATION_FAILED")),
        ("402", failure("402 Payment Required", "INSUFFICIENT_BALANCE")),
        ("404", failure("404 Not Found", "MODEL_NOT_FOUND")),
        ("408", answer("408 Request Timeout", "", "")),
        ("409", answer("409 Conflict", "", "")),
        ("413", answer("413 Content Too Large", "", "")),
        ("429 without JSON", slow_down("")),
        ("429, `Retry-After` in seconds", slow_down("retry-after: 30\r\n")),
        ("429, `retry-after-ms`", slow_down("retry-after-ms: 10\r\n")),
        ("429, `Retry-After` as a date", slow_down(&format!("retry-after: {date}\r\n"))),
        ("429, `Retry-After` of days", slow_down("retry-after: 259200\r\n")),
        ("429 `insufficient_quota`", failure("429 Too Many Requests", "insufficient_quota")),
        ("500 without a body", answer("500 Internal Server Error", "", "")),
        ("500 `INTERNAL_ERROR`", failure("500 Internal Server Error", "INTERNAL_ERROR")),
        ("502 without a body", answer("502 Bad Gateway", "", "")),
        ("502 `UPSTREAM_ERROR`", failure("502 Bad Gateway", "UPSTREAM_ERROR")),
        ("502 `ALL_PROVIDERS_EXHAUSTED`", failure("502 Bad Gateway", "ALL_PROVIDERS_EXHAUSTED")),
        ("503", answer("503 Service Unavailable", "", "")),
        ("503 `UPSTREAM_ERROR`", failure("503 Service Unavailable", "UPSTREAM_ERROR")),
        ("503 `INTERNAL_ERROR`", failure("503 Service Unavailable", "INTERNAL_ERROR")),
        ("503 whose JSON breaks off", answer("503 Service Unavailable", "", r#"{"error":{"message":"#)),
        ("503, and a reset in the middle of its body", Act::SayAndReset(broken_503.into())),
        ("504", answer("504 Gateway Timeout", "", "")),
        ("524", answer("524 A Timeout Occurred", "", "")),
    ]
}

/// Those that strike while the images of an edit are sent.
fn faults_of_uploads() -> Vec<(&'static str, Act)> {
    let Act::Say(refusal) = answer("413 Content Too Large", "", "") else { unreachable!() };
    vec![
        ("413 while images are sent", Act::Interrupt(refusal)),
        ("reset while images are sent", Act::Interrupt(Vec::new())),
    ]
}

fn before_ok(interim: &str) -> Act {
    let Act::Say(ok) = answer("200 OK", "", ONE_ADDRESS) else { unreachable!() };
    Act::Say([format!("HTTP/1.1 {interim}\r\n\r\n").into_bytes(), ok].concat())
}

fn settings(uri: &str, retry: RetryPolicy) -> ClientBuilder {
    builder(uri)
        .connect_timeout(Duration::from_secs(2))
        .first_byte_timeout(Duration::from_millis(600))
        .idle_timeout(Duration::from_millis(600))
        .timeout(Duration::from_secs(3))
        .max_response_bytes(64 * 1024)
        // A service's wait is obeyed up to here, so that the test need not take half a minute.
        .retry(retry.max_retries(1).max_wait(Duration::from_millis(50)))
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Call {
    Generate,
    Edit,
    /// More than the buffers of a connection hold.
    LargeEdit,
}

impl Call {
    async fn run(self, remote: &Remote) -> Result<Output, Error> {
        let edit =
            async |image: Vec<u8>| remote.edit(edit_spec(vec![Input::bytes(image)]), RequestContext::default()).await;
        match self {
            Self::Generate => remote.generate(generate_spec(), RequestContext::default()).await,
            Self::Edit => edit(PNG.to_vec()).await,
            Self::LargeEdit => edit([PNG, &vec![7; 16 << 20]].concat()).await,
        }
    }
}

/// What becomes of a call, in words.
#[derive(Debug, PartialEq)]
struct Outcome {
    outcome: String,
    billed: &'static str,
    tries: String,
    asked: String,
    /// How many requests the server saw: by default, and where the caller opted in.
    posts: [usize; 2],
}

impl Outcome {
    async fn of(call: Call, act: &Act) -> Self {
        let [careful, bold] = [RawServer::start(act.clone()).await, RawServer::start(act.clone()).await];
        let [cautious, daring] = [(&careful, RetryPolicy::default()), (&bold, RetryPolicy::default().may_bill_twice())]
            .map(|(server, retry)| settings(&server.uri, retry));
        let (outcome, _) = tokio::join!(Self::of_client(call, cautious), Self::of_client(call, daring));
        Self { posts: [careful.requests(), bold.requests()], ..outcome }
    }

    /// Where the server does not count.
    async fn of_client(call: Call, client: ClientBuilder) -> Self {
        let posts = [0; 2];
        let Err(error) = call.run(&client.backend().unwrap()).await else {
            return Self { outcome: "images".into(), billed: "billed", tries: "1".into(), asked: String::new(), posts };
        };
        Self {
            outcome: format!("`{:?}`", error.kind()),
            billed: if error.maybe_billed() { "yes" } else { "no" },
            tries: error.attempts().to_string(),
            asked: error.retry_after().map(in_words).unwrap_or_default(),
            posts,
        }
    }

    fn row(&self, name: &str) -> String {
        let Self { outcome, billed, tries, asked, posts: [careful, bold] } = self;
        format!("| {name} | {outcome} | {billed} | {tries} | {careful} | {bold} | {asked} |\n")
    }
}

/// A date has whole seconds and comes nearer, so long waits are told roughly.
fn in_words(wait: Duration) -> String {
    match wait.as_secs() {
        0..60 => format!("{} s", wait.as_secs_f64()),
        _ => format!("{:.0} min", wait.as_secs_f64() / 60.0),
    }
}

struct NoName;

impl Resolve for NoName {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Err::<Addrs, _>("no such host".into()) })
    }
}

/// Faults before there is a server that reads a request.
async fn unreachable_rows() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nameless = own_http_client().dns_resolver(std::sync::Arc::new(NoName)).build().unwrap();
    let no_tls = RawServer::start(Act::Greet(b"this is no TLS".to_vec())).await;
    let policies = [RetryPolicy::default(), RetryPolicy::default().may_bill_twice()];
    let mut rows = String::new();
    for (name, uri) in [
        ("connection refused", format!("http://127.0.0.1:{port}")),
        ("the host's name is unknown", "http://host.invalid".into()),
        ("TLS fails", no_tls.uri.replace("http:", "https:")),
    ] {
        let clients = policies.clone().map(|policy| match uri.contains("host.invalid") {
            true => settings(&uri, policy).http_client(nameless.clone()),
            false => settings(&uri, policy),
        });
        let [careful, bold] = clients;
        let careful = Outcome::of_client(Call::Generate, careful).await;
        assert_eq!(Outcome::of_client(Call::Edit, bold).await, careful, "{name}");
        rows += &careful.row(name);
    }
    assert_eq!(no_tls.requests(), 0);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_faults_is_the_one_in_the_documentation() {
    let mut table = INTRODUCTION.to_owned() + &unreachable_rows().await;
    // One after the other: a busy machine is not to turn one fault into another.
    for (name, act) in faults() {
        let (generation, edit) = tokio::join!(Outcome::of(Call::Generate, &act), Outcome::of(Call::Edit, &act));
        assert_eq!(generation, edit, "{name}");
        table += &generation.row(name);
    }
    for (name, act) in faults_of_uploads() {
        table += &Outcome::of(Call::LargeEdit, &act).await.row(name);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    for (kept, made) in kept.lines().zip(table.lines()) {
        assert_eq!(made, kept);
    }
    assert_eq!(table.lines().count(), kept.lines().count());
}
