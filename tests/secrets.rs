//! Every path, with a canary for a key and a signature, and everything that was logged or printed.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use lumenfall::RetryPolicy;
use lumenfall::testing::{Fault, MockGateway, PIXEL};
use lumenfall::{Client, Input};

/// The part of the mock's key that is secret.
const CANARY: &str = "lmnfl_mock";

static LOGGED: Mutex<String> = Mutex::new(String::new());

/// Keeps everything, down to the level `trace`.
struct Everything;

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        *LOGGED.lock().unwrap() += &format!("{} {}\n", record.target(), record.args());
    }

    fn flush(&self) {}
}

fn print(value: &impl Debug) {
    *LOGGED.lock().unwrap() += &format!("{value:?}\n");
}

#[tokio::test]
async fn nothing_that_is_logged_or_printed_holds_the_key_or_a_signature() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let gateway = MockGateway::start().await.unwrap();
    let builder = gateway.builder().retry(RetryPolicy::none()).idle_timeout(Duration::from_millis(300));
    print(&builder);
    let client = builder.clone().build().unwrap();
    print(&client);
    for fault in [
        None,
        Some(Fault::Status(500)),
        Some(Fault::Code(400, format!("{}.secret", CANARY))),
        Some(Fault::RateLimited(Duration::ZERO)),
        Some(Fault::Reset),
        Some(Fault::ResetInBody),
        Some(Fault::Garbage),
        Some(Fault::NoImages),
    ] {
        for edit in [false, true] {
            fault.clone().into_iter().for_each(|fault| gateway.fault_next(fault));
            let result = match edit {
                false => client.images().generate("a lighthouse").send().await,
                true => client.images().edit(Input::bytes(PIXEL)).send().await,
            };
            match result {
                Ok(images) => {
                    print(&images);
                    print(&images.first().unwrap().download().await.unwrap());
                }
                Err(error) => {
                    print(&error);
                    print(&error.to_string());
                }
            }
        }
    }
    print(&client.images().generate("a lighthouse").estimate().await);
    let remote = builder.clone().backend().unwrap();
    print(&remote.account().balance().await);
    print(&remote.models().get("none").await);
    print(&remote.account().purge("none").await);
    // Addresses with a signature that cannot be fetched.
    for address in [format!("{}/none?sig={CANARY}", gateway.base_url()), format!("http://127.0.0.1:9/x?sig={CANARY}")] {
        print(&Input::fetch(&client, &address).await.map(|_| ()));
    }
    // Keys that cannot be sent, and one that is refused.
    print(&Client::builder().api_key(format!("{CANARY}\n")).build().map(|_| ()));
    let stranger = gateway.builder().api_key(format!("{CANARY}_wrong")).build().unwrap();
    print(&stranger.images().generate("a lighthouse").send().await.map(|_| ()));

    let logged = LOGGED.lock().unwrap();
    assert!(logged.contains("reqwest") || logged.contains("hyper"), "the libraries below log, too");
    let told: Vec<_> = logged.lines().filter(|line| line.contains(CANARY)).collect();
    assert!(told.is_empty(), "{told:#?}");
}
