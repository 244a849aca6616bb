//! The spans and events of `tracing`.

// Clippy does not recognise helper functions as part of tests.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use lumenfall::testing::MockBackend;
use lumenfall::{Client, Error, ErrorKind, count};
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_a_span_with_conventional_fields_and_without_the_prompt() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let backend = MockBackend::new();
    let client = Client::new(backend.clone());
    client.images().generate("a lighthouse").n(count!(2)).send().await.unwrap();
    backend.fail_next(Error::new(ErrorKind::RateLimited, "wait a minute"));
    client.images().generate("a lighthouse").send().await.unwrap_err();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for expected in [
        "image_generation{gen_ai.operation.name=\"text_to_image\"",
        "gen_ai.request.model=\"stable-diffusion-3.5-medium\"",
        "gen_ai.request.choice.count=2",
        "gen_ai.provider.name=\"mock\"",
        "error.type=RateLimited",
        "wait a minute",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("lighthouse"), "{text}");
}
