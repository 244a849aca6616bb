//! The received part of a response to a paid request: JSON, or a stream of server-sent events.

use super::base64_stream::{Base64Extractor, Extracted};
use super::events::{self, Events};
use crate::backend::Progress;

/// So many bytes show whether a response is a stream of events.
const START: usize = 6;

/// Decodes images while a response is received.
pub(crate) struct Received {
    media_type: Option<String>,
    capacity: usize,
    /// The first bytes, until they show the kind of the response.
    start: Vec<u8>,
    kind: Option<Kind>,
}

enum Kind {
    Json(Base64Extractor),
    Events(Events),
}

impl Received {
    /// Expects a response of `capacity` bytes; 0 if its length is unknown.
    pub(crate) fn new(media_type: Option<&str>, capacity: usize) -> Self {
        Self { media_type: media_type.map(str::to_owned), capacity, start: Vec::new(), kind: None }
    }

    /// Adds the next chunk of the response. Partial images are passed to `report`.
    pub(crate) fn push(&mut self, chunk: &[u8], report: &impl Fn(Progress)) {
        match &mut self.kind {
            Some(Kind::Json(extractor)) => extractor.push(chunk),
            Some(Kind::Events(events)) => events.push(chunk, report),
            None => {
                self.start.extend_from_slice(chunk);
                if self.start.trim_ascii_start().len() >= START {
                    self.choose(report);
                }
            }
        }
    }

    /// Ends the response.
    pub(crate) fn finish(mut self, report: &impl Fn(Progress)) -> Extracted {
        if self.kind.is_none() {
            self.choose(report);
        }
        match self.kind {
            Some(Kind::Events(events)) => events.finish(report),
            Some(Kind::Json(extractor)) => extractor.finish(),
            None => Base64Extractor::new(0).finish(),
        }
    }

    /// Chooses the kind of the response by its first bytes.
    fn choose(&mut self, report: &impl Fn(Progress)) {
        let start = std::mem::take(&mut self.start);
        self.kind = Some(match events::is_stream(self.media_type.as_deref(), &start) {
            true => Kind::Events(Events::new()),
            false => Kind::Json(Base64Extractor::new(self.capacity)),
        });
        self.push(&start, report);
    }
}
