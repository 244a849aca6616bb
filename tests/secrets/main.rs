//! No key, signature or password appears in anything that is printed or logged, whatever happens.
//!
//! This program starts itself again as a client that uses every part of the crate, and reads everything that the client writes:
//! values, errors, the logs of all libraries and the messages of panics. The server runs here, so that the output contains
//! nothing of it.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer};

use self::client::client;
use self::responses::Responses;

mod client;
mod responses;

const KEY: &str = "lmnfl_id.canary-of-the-key";
const SIGNATURE: &str = "canary-of-the-signature";
const PASSWORD: &str = "canary-of-the-password";

/// Text that must not be written. A proxy's password is sent as base64 of `user:password`; the last key is the mock gateway's.
const SECRETS: [&str; 5] =
    ["canary-of-the-key", SIGNATURE, PASSWORD, "dXNlcjpjYW5hcnktb2YtdGhlLXBhc3N3b3Jk", "lmnfl_mock"];

/// The last line of the client's output.
const END: &str = "the end";

/// The environment variables of the client: the URL of the server, and a folder.
const VARIABLES: [&str; 2] = ["LUMENFALL_TEST_URL", "LUMENFALL_TEST_FOLDER"];

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    match VARIABLES.map(env::var) {
        [Ok(url), Ok(folder)] => client(url, Path::new(&folder)).await,
        _ => {
            no_secret_is_printed_or_logged().await;
            println!("1 passed, 0 failed");
        }
    }
}

async fn no_secret_is_printed_or_logged() {
    let folder = tempfile::tempdir().unwrap();
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(Responses(server.uri())).mount(&server).await;
    let mut client = Command::new(env::current_exe().unwrap());
    client.envs(VARIABLES.into_iter().zip([&*server.uri(), folder.path().to_str().unwrap()]));
    let output = client.env_remove("RUST_BACKTRACE").output();
    let output = tokio::time::timeout(Duration::from_secs(300), output).await.unwrap().unwrap();
    let (printed, logged) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));

    let mut lines = printed.lines().chain(logged.lines());
    let line = lines.find(|line| SECRETS.iter().any(|secret| line.contains(secret)));
    assert_eq!(line, None, "this line contains a secret");
    let panics: Vec<_> = logged.split_inclusive("panicked at").skip(1).map(|text| text.get(..500)).collect();
    assert!(output.status.success() && printed.ends_with(&format!("{END}\n")), "{panics:#?}");
    for text in ["reqwest::", "hyper_util::", "h2::", "panicked at"] {
        assert!(logged.contains(text), "{text} is not in the log");
    }

    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().any(|request| request.url.as_str().contains(SIGNATURE)));
    let with_key = requests.iter().filter(|request| request.headers.contains_key("authorization"));
    let (traced, untraced): (Vec<_>, Vec<_>) =
        with_key.partition(|request| request.headers.contains_key("traceparent"));
    assert!(!traced.is_empty());
    // Three jobs are cancelled at each provider and with each HTTP version, independently of the span of the call.
    assert_eq!(untraced.len(), 12);
    assert!(untraced.iter().all(|request| request.url.path().ends_with("/cancel")));
}
