//! Runtimes that lack the timer.

// Clippy allows these only in functions that are marked as tests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::FutureExt;
use lumenfall::remote::Remote;
use lumenfall::testing::MockBackend;
use lumenfall::{Client, ErrorKind};
use tokio::runtime::Builder;

fn clients() -> Vec<Client> {
    let remote = Remote::builder().api_key("k").base_url("http://127.0.0.1:9").build().unwrap();
    vec![
        Client::new(MockBackend::new()),
        Client::new(remote),
        #[cfg(feature = "local")]
        Client::demo().unwrap(),
    ]
}

#[test]
fn a_runtime_without_timer_is_reported() {
    for client in clients() {
        let request = || client.images().generate("a star").timeout(Duration::from_secs(1)).send();
        let without_timer = Builder::new_current_thread().enable_io().build().unwrap().block_on(request()).unwrap_err();
        let without_runtime = request().now_or_never().unwrap().unwrap_err();
        for error in [without_timer, without_runtime] {
            assert_eq!(error.kind(), ErrorKind::Configuration, "{}: {error}", client.backend().name());
            assert!(error.to_string().contains("call `enable_all()`"), "{error}");
        }
    }
}

#[cfg(feature = "local")]
#[test]
fn only_layers_that_wait_for_a_time_need_the_timer_for_a_local_request() {
    use lumenfall::layers::{Limit, Retry};
    use lumenfall::local::Local;
    use lumenfall::{RetryPolicy, size};

    let local = || Local::demo().unwrap();
    let limit = Client::new(Limit::new(local()).rate(1, Duration::from_secs(60)));
    let retry = Client::new(Retry::new(local(), RetryPolicy::default()));
    let needed = Some(ErrorKind::Configuration);
    for (client, expected) in [(&Client::new(local()), None), (&limit, None), (&limit, needed), (&retry, needed)] {
        let request = client.images().generate("a star").size(size!("64x64")).steps(1).send();
        let result = Builder::new_current_thread().build().unwrap().block_on(request);
        assert_eq!(result.err().map(|error| error.kind()), expected, "{:?}", client.backend());
    }
}
