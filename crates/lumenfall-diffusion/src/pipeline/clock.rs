//! The time that a request still needs.

use std::time::{Duration, Instant};

use super::request::Request;

/// Estimates the remaining time of a request from the time of the forward passes so far.
///
/// Decoding an image counts as one forward pass, which has about the same number of operations.
pub(crate) struct Clock {
    started: Instant,
    done: usize,
    /// Those of `done` that left out blocks.
    skipped: usize,
    total: usize,
}

impl Clock {
    /// Starts with the first forward pass.
    pub(crate) fn start(request: &Request) -> Self {
        let forwards: usize = (0..request.steps.len()).map(|step| request.forwards(step)).sum();
        Self {
            started: Instant::now(),
            done: 0,
            skipped: 0,
            total: (forwards + 1).saturating_mul(request.parameters.count as usize),
        }
    }

    /// Counts forward passes that have ended, of which `skipped` left out blocks.
    pub(crate) fn advance(&mut self, forwards: usize, skipped: usize) {
        self.done += forwards;
        self.skipped += skipped;
    }

    /// Estimates the time until the request ends.
    pub(crate) fn remaining(&self) -> Duration {
        let left = self.total.saturating_sub(self.done) as f64;
        self.started.elapsed().mul_f64(left / self.done.max(1) as f64)
    }

    /// Estimates the time of a number of forward passes with all blocks, from above.
    pub(crate) fn time_of_computed(&self, forwards: usize) -> Duration {
        self.started.elapsed().mul_f64(forwards as f64 / self.done.saturating_sub(self.skipped).max(1) as f64)
    }
}
