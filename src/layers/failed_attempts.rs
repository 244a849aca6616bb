//! The cost and the images of failed attempts.

use crate::backend::{Content, ImageData, Output};
use crate::error::{Bills, Error};

/// The failed attempts of a request: what they may have cost, and the URLs of their images.
#[derive(Default)]
pub(super) struct FailedAttempts {
    bills: Bills,
    unfetched_urls: Vec<String>,
}

impl FailedAttempts {
    pub(super) fn add(&mut self, error: &Error) {
        self.bills.add(error.bills());
        self.unfetched_urls.extend_from_slice(error.unfetched_urls());
    }

    /// Adds the bills and images of the failed attempts to the result of the successful one.
    pub(super) fn add_to_output(self, mut output: Output) -> Output {
        let metadata = &mut output.metadata;
        metadata.lost_bills = metadata.lost_bills.saturating_add(self.bills.attempts);
        if !self.unfetched_urls.is_empty() {
            let count = self.unfetched_urls.len();
            let warning = format!("{count} images of earlier attempts were not downloaded; their URLs are kept");
            metadata.warnings.push(warning);
        }
        let image = |url| ImageData::new(Content::Unfetched(url));
        output.images.extend(self.unfetched_urls.into_iter().map(image));
        output
    }

    /// Adds the bills and images of all failed attempts to the error of the last one.
    pub(super) fn add_to_error(self, last: Error) -> Error {
        last.with_bills(self.bills).replacing_unfetched_urls(self.unfetched_urls)
    }
}
