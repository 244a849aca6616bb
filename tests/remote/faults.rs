//! The table of faults in `docs/faults.md`: for each fault the error, whether the request may have been billed, and the
//! number of attempts. After an intended change, run the test with `UPDATE_DOCS=1` and review the difference.

use std::time::SystemTime;

use lumenfall::remote::RemoteBuilder;
use tokio::net::TcpListener;

use crate::support::*;

const INTRODUCTION: &str = "\
# Faults

The outcome of a paid call for each kind of fault. A test produces each fault on a loopback server, for a generation and for
an edit (which have the same outcome), and compares this table; it is updated by
`UPDATE_DOCS=1 cargo test --features reqwest-client --test remote faults`. Each call may be retried once.

*Attempts* counts all attempts. *POSTs* counts the requests that reached the server: by default, and with
`RetryPolicy::may_bill_twice()`. *Requested wait* is `Error::retry_after()`, which is honoured up to `RetryPolicy::max_wait`.

| fault | outcome | may have been billed | attempts | POSTs | POSTs with `may_bill_twice` | requested wait |
|---|---|---|---|---|---|---|
";

const GENERATE_AND_EDIT: &[Call] = &[Call::Generate, Call::Edit];

fn faults() -> Vec<(String, Act, &'static [Call])> {
    let ok = |headers: &str, body: &str| Act::Send(response("200 OK", headers, body));
    let rate_limit = |headers: &str, body: &str| Act::Send(response("429 Too Many Requests", headers, body));
    let after = |interim: &str| {
        let interim = format!("HTTP/1.1 {interim}\r\n\r\n").into_bytes();
        Act::Send([interim, response("200 OK", "", ONE_URL)].concat())
    };
    let truncated = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{\"data\":[".to_vec();
    let endless = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"data\":[                    ".to_vec();
    let truncated_503 = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9999\r\n\r\n<html>".to_vec();
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
    let connections_and_bodies = [
        ("reset before the response", Act::Reset(Vec::new())),
        ("no response", Act::Hang(Vec::new())),
        ("reset after the response headers", Act::Reset(truncated[..40].to_vec())),
        ("reset in the response body", Act::Reset(truncated.clone())),
        ("connection closed in the response body", Act::Send(truncated.clone())),
        ("the response body stops", Act::Hang(truncated.clone())),
        ("a slow response body, beyond the deadline", Act::Drip(truncated, Duration::from_millis(50))),
        ("an endless body", Act::Repeat(endless)),
        ("a body over the size limit", ok("", &" ".repeat(100_000))),
        ("truncated JSON", ok("", r#"{"data":[{"url":"https://"#)),
        ("an HTML page with status 200", ok("content-type: text/html\r\n", "<html></html>")),
        ("an error with status 200", ok("", r#"{"error":{"message":"no GPU","code":"BUSY"}}"#)),
        ("JSON with a wrong content type", ok("content-type: text/html\r\n", ONE_URL)),
        ("an unrequested gzip body", Act::Send(response("200 OK", "content-encoding: gzip\r\n", gzip_bomb()))),
        ("no image in the response", ok("", r#"{"data":[]}"#)),
        ("100 Continue, then the response", after("100 Continue")),
        ("103 Early Hints, then the response", after("103 Early Hints")),
        ("429 with an HTML page", rate_limit("", "<html>slow down</html>")),
        ("429, `Retry-After` in seconds", rate_limit("retry-after: 30\r\n", "")),
        ("429, `retry-after-ms`", rate_limit("retry-after-ms: 10\r\n", "")),
        ("429, `Retry-After` as a date", rate_limit(&format!("retry-after: {date}\r\n"), "")),
        ("429, `Retry-After` of days", rate_limit("retry-after: 259200\r\n", "")),
        ("503 with truncated JSON", Act::Send(response("503 Service Unavailable", "", r#"{"error":{"message":"#))),
        ("503, and a reset in its body", Act::Reset(truncated_503)),
    ];
    let redirects = [302, 303, 307].map(|status| {
        let response = response(&format!("{status} Redirect"), "location: http://127.0.0.1:9/\r\n", "");
        (format!("{status} to another host"), Act::Send(response))
    });
    let statuses = [204, 408, 409, 413, 429, 500, 502, 503, 504, 524]
        .map(|status| (format!("{status} without a body"), Act::Send(response(&format!("{status} Status"), "", ""))));
    let codes = [
        (400, "INVALID_REQUEST"),
        (400, "CONTENT_POLICY_VIOLATION"),
        (401, "AUTHENTICATION_FAILED"),
        (402, "INSUFFICIENT_BALANCE"),
        (404, "MODEL_NOT_FOUND"),
        (429, "RATE_LIMITED"),
        (429, "insufficient_quota"),
        (500, "INTERNAL_ERROR"),
        (502, "UPSTREAM_ERROR"),
        (502, "ALL_PROVIDERS_EXHAUSTED"),
        (503, "UPSTREAM_ERROR"),
        (503, "internal_error"),
    ];
    let codes = codes.map(|(status, code)| {
        let body = format!(r#"{{"error":{{"code":"{code}"}}}}"#);
        (format!("{status} `{code}`"), Act::Send(response(&format!("{status} Status"), "", body)))
    });
    let uploads = [
        ("413 during an upload", Act::Interrupt(response("413 Content Too Large", "", ""))),
        ("reset during an upload", Act::Interrupt(Vec::new())),
    ];
    let named = |(name, act): (&str, Act)| (name.to_owned(), act);
    let faults = connections_and_bodies.map(named).into_iter().chain(redirects).chain(statuses).chain(codes);
    let faults = faults.map(|(name, act)| (name, act, GENERATE_AND_EDIT));
    faults.chain(uploads.map(named).map(|(name, act)| (name, act, &[Call::LargeEdit][..]))).collect()
}

/// Clients whose server never reads a request.
async fn unreachable(server: &RawServer, silent: &TcpListener) -> [(&'static str, RemoteBuilder); 5] {
    let nameless = http_client().dns_resolver(Arc::new(Resolver(Duration::ZERO, None))).build().unwrap();
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing_uri = format!("http://{}", closing.local_addr().unwrap());
    tokio::spawn(async move { while closing.accept().await.is_ok() {} });
    [
        ("connection refused", builder(UNREACHABLE)),
        ("unknown host name", builder("http://host.invalid").http_client(nameless)),
        ("TLS fails", builder(&server.uri.replace("http", "https"))),
        ("no response to the TLS handshake", builder(&format!("https://{}", silent.local_addr().unwrap()))),
        ("connection closed before the request is read", builder(&closing_uri)),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Generate,
    Edit,
    /// An edit whose image is larger than the buffers of a connection.
    LargeEdit,
}

/// A client that never risks to pay twice, and one that does.
fn clients(builder: RemoteBuilder) -> [Remote; 2] {
    [RetryPolicy::default(), RetryPolicy::default().may_bill_twice()].map(|retry| {
        let builder = builder
            .clone()
            .connect_timeout(Duration::from_millis(400))
            .first_byte_timeout(Duration::from_millis(600))
            .idle_timeout(Duration::from_millis(600))
            .timeout(Duration::from_secs(3))
            .max_response_bytes(64 * 1024)
            .retry(retry.max_retries(1).max_wait(Duration::from_millis(50)));
        builder.build().unwrap()
    })
}

/// Returns the cells of the table that the call itself determines.
async fn outcome(call: Call, remote: &Remote) -> [String; 4] {
    let edit = |image: Vec<u8>| send_edit(remote, edit_spec([Input::bytes(image)]));
    let result = match call {
        Call::Generate => send(remote, generate_spec()).await,
        Call::Edit => edit(PNG.to_vec()).await,
        Call::LargeEdit => edit([PNG, &vec![7; 16 << 20]].concat()).await,
    };
    match result {
        Ok(_) => ["images", "billed", "1", ""].map(str::to_owned),
        Err(error) => [
            format!("`{:?}`", error.kind()),
            if error.maybe_billed() { "yes" } else { "no" }.to_owned(),
            error.attempts().to_string(),
            error.retry_after().map(in_words).unwrap_or_default(),
        ],
    }
}

/// A date has whole seconds and some time passes until it is read, so long waits are rounded to minutes.
fn in_words(wait: Duration) -> String {
    match wait.as_secs() {
        0..60 => format!("{} s", wait.as_secs_f64()),
        _ => format!("{:.0} min", wait.as_secs_f64() / 60.0),
    }
}

/// Returns a row of the table, which must be the same for all `calls`.
async fn row(name: &str, calls: &[Call], [careful, bold]: &[Remote; 2], server: &RawServer) -> String {
    let mut rows = Vec::new();
    for call in calls {
        let before = server.requests();
        let [outcome, billed, attempts, wait] = outcome(*call, careful).await;
        let between = server.requests();
        self::outcome(*call, bold).await;
        let (careful, bold) = (between - before, server.requests() - between);
        rows.push(format!("| {name} | {outcome} | {billed} | {attempts} | {careful} | {bold} | {wait} |\n"));
    }
    assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    rows.swap_remove(0)
}

async fn table() -> String {
    let mut table = INTRODUCTION.to_owned();
    let act = Arc::new(Mutex::new(Act::Send(Vec::new())));
    let chosen = Arc::clone(&act);
    let server = RawServer::routed(move |_, _| chosen.lock().unwrap().clone()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (name, builder) in unreachable(&server, &silent).await {
        table += &row(name, GENERATE_AND_EDIT, &clients(builder), &server).await;
    }
    let clients = clients(builder(&server.uri));
    for (name, fault, calls) in faults() {
        *act.lock().unwrap() = fault;
        table += &row(&name, calls, &clients, &server).await;
    }
    table
}

#[test]
fn the_table_of_faults_matches_the_documentation() {
    paused(async {
        let table = table().await;
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
        // The soak test writes the rest of the page.
        let page = std::fs::read_to_string(path).unwrap();
        let (documented, rest) = page.split_at(page.find("\n## Crowds\n").unwrap());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, table + rest).unwrap();
            return;
        }
        let differences: Vec<_> = table.lines().filter(|line| !documented.lines().any(|old| old == *line)).collect();
        assert!(table == documented, "lines that are not in docs/faults.md: {differences:#?}");
    });
}
