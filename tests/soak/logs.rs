//! Searches all logs of the program for secrets, without storing them.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::filter::LevelFilter;

use crate::jobs::KEY;

/// The keys, and the signature of the mock gateway's URLs.
const SECRETS: [&str; 3] = ["lmnfl_mock.secret", "lmnfl_mock_signature", KEY];

static EVENTS: AtomicUsize = AtomicUsize::new(0);
static FOUND: AtomicUsize = AtomicUsize::new(0);

/// Installs the search for all threads.
pub(crate) fn install() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).with_ansi(false).with_writer(|| Search).init();
    tracing::info!("{KEY}");
    assert_eq!(counts(), (1, 1), "the search finds a key");
    FOUND.store(0, Ordering::SeqCst);
}

/// Returns the number of events and of those that contained a secret.
pub(crate) fn counts() -> (usize, usize) {
    (EVENTS.load(Ordering::SeqCst), FOUND.load(Ordering::SeqCst))
}

struct Search;

impl Write for Search {
    /// Receives one event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        EVENTS.fetch_add(1, Ordering::SeqCst);
        let text = String::from_utf8_lossy(event);
        if SECRETS.iter().any(|secret| text.contains(secret)) {
            FOUND.fetch_add(1, Ordering::SeqCst);
            if !text.contains(": soak::logs: ") {
                eprintln!("{text}");
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
