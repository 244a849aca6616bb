//! Every path, with canaries for keys, signatures and passwords, and everything that was logged or printed.
//!
//! This program starts itself again as the client and reads all that the client writes: what it prints, what the
//! libraries below it log, and what a panic says. The servers stay here, so that nothing of theirs is among it.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use self::client::client;
use self::stage::Stage;

#[path = "../authority/mod.rs"]
mod authority;
mod client;
mod stage;

const KEY: &str = "lmnfl_id.canary-of-the-key";
const SIGNATURE: &str = "canary-of-the-signature";
const PASSWORD: &str = "canary-of-the-password";

/// What must not be told. A proxy's password is sent in base64, after `user:`.
const SECRETS: [&str; 5] =
    ["canary-of-the-key", SIGNATURE, PASSWORD, "dXNlcjpjYW5hcnktb2YtdGhlLXBhc3N3b3Jk", "lmnfl_mock"];

/// The client's last words.
const THE_END: &str = "that was all";

/// The addresses of the two servers, and a folder.
const STAGE: [&str; 3] = ["LUMENFALL_TEST_PLAIN", "LUMENFALL_TEST_TLS", "LUMENFALL_TEST_FOLDER"];

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    match STAGE.map(env::var) {
        [Ok(plain), Ok(tls), Ok(folder)] => client(&plain, &tls, Path::new(&folder)).await,
        _ => {
            nothing_that_is_logged_or_printed_holds_a_secret().await;
            println!("1 passed, 0 failed");
        }
    }
}

async fn nothing_that_is_logged_or_printed_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, config) = authority::authority();
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, authority).unwrap();
    let (plain, _server) = Stage::plain().await;
    let tls = Stage::tls(config).await;

    let mut client = Command::new(env::current_exe().unwrap());
    client.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR").env_remove("RUST_BACKTRACE");
    client.envs(STAGE.into_iter().zip([&plain.base, &tls.base, folder.path().to_str().unwrap()]));
    let output = tokio::task::spawn_blocking(move || client.output());
    let output = tokio::time::timeout(Duration::from_secs(300), output).await.unwrap().unwrap().unwrap();
    let (printed, logged) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));

    let lines = printed.lines().chain(logged.lines());
    let told: Vec<_> = lines.filter(|line| SECRETS.iter().any(|secret| line.contains(secret))).collect();
    assert!(told.is_empty(), "{} lines tell secrets, such as {:#?}", told.len(), &told[..told.len().min(20)]);
    let last: Vec<_> = logged.lines().rev().take(20).collect();
    assert!(output.status.success() && printed.ends_with(&format!("{THE_END}\n")), "{last:#?}");
    for library in ["reqwest::", "hyper_util::", "h2::"] {
        assert!(logged.contains(library), "{library} logs, too");
    }
    assert!(logged.contains("panicked at"), "a panic is among it");
    for stage in [plain, tls] {
        assert!(stage.keys() > 0 && stage.signatures() > 0, "{} has seen the canaries", stage.base);
        assert_eq!(stage.cancellations(), 6, "of three jobs at each provider, at {}", stage.base);
        // A job is cancelled beside the call.
        assert_eq!(stage.traces() + stage.cancellations(), stage.keys(), "each call was made within a span");
    }
}
