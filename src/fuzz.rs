//! What the fuzz targets of `fuzz/` call: the readers of what comes from outside, and what each promises of any input.
//!
//! The inputs kept in `fuzz/corpus/` run through the same functions as an ordinary test.

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::backend::Output;
use crate::generated::stable_diffusion_3_5_medium::SCHEMA;
use crate::images::{self, AspectRatio, OutputFormat, Resolution, Size};
use crate::remote;
use crate::{Error, RetryPolicy};

/// A message longer than this holds more than words.
const MESSAGE: usize = 2_000;
const KEY: &str = "lmnfl_key.canary";

/// The answer to a paid request.
pub fn answer(data: &[u8]) {
    let whole = remote::read_answer([data]);
    let told = |result: &Result<Output, Error>| match result {
        Ok(Output { images, metadata }) => {
            let images = images.iter().map(|image| (image.content.clone(), image.revised_prompt.clone(), image.seed));
            Ok((images.collect::<Vec<_>>(), format!("{metadata:?}")))
        }
        Err(error) => Err(error.to_string()),
    };
    for size in [1, 7] {
        let pieces = remote::read_answer(data.chunks(size));
        assert_eq!(told(&whole), told(&pieces), "where the pieces end makes no difference");
    }
    let untouched = remote::read_untouched_answer(data);
    // Where an answer is broken depends on what is taken out of it, and so does the wording; nothing else.
    let wordless = |result: &Result<Output, Error>| {
        let output = result.as_ref().ok().cloned().map(|mut output| {
            output.metadata.warnings.iter_mut().for_each(String::clear);
            output
        });
        output.map(|output| told(&Ok(output)))
    };
    match &untouched {
        Ok(_) => assert_eq!(wordless(&whole), wordless(&untouched), "taking the images out makes no difference"),
        // What had come whole before an answer broke is kept.
        Err(_) => assert!(whole.iter().all(|output| !output.metadata.warnings.is_empty()), "a broken answer is told"),
    }
    match whole {
        Ok(output) => assert!(!output.images.is_empty(), "an answer without an image is an error"),
        Err(error) => {
            assert!(error.maybe_billed(), "the request succeeded, so it was billed");
            check_message(&error);
        }
    }
}

/// The answer that refuses a request. The first two bytes choose its status, the first bit whether it broke off.
pub fn failure(data: &[u8]) {
    let Some((&[high, low], body)) = data.split_first_chunk() else { return };
    let Ok(status) = StatusCode::from_u16(300 + u16::from_be_bytes([high, low]) % 300) else { return };
    let error = remote::read_failure(status, body, high < 0x80, KEY);
    assert_eq!(error.status(), Some(status.as_u16()));
    let told = format!("{error} {error:?} {:?} {:?}", error.code(), error.parameter());
    assert!(!told.contains(KEY), "the key is told: {told}");
    check_message(&error);
}

/// How long a service asks to wait. After a line's end comes the time by its own clock.
pub fn retry_after(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let Some(Ok(value)) = lines.next() else { return };
    let date = lines.next().and_then(Result::ok).map(|date| (DATE, date));
    for name in [RETRY_AFTER, HeaderName::from_static("retry-after-ms")] {
        let headers = date.clone().into_iter().chain([(name, value.clone())]);
        let asked = remote::read_retry_after(&HeaderMap::from_iter(headers));
        let policy = RetryPolicy::default();
        for attempt in [1, u32::MAX] {
            assert!(policy.wait(attempt, asked) <= policy.max_wait, "no wait is longer than the longest allowed");
        }
    }
}

/// The name that an uploaded file goes by.
pub fn file_name(data: &[u8]) {
    let stem = String::from_utf8_lossy(data);
    let name = remote::file_name(&stem, OutputFormat::Png, "image");
    assert!(name.ends_with(".png") && name.len() > 4, "{name:?}");
    let tears_the_header = |c: char| c.is_control() || "\"\\/;%".contains(c) || !c.is_ascii();
    assert!(!name.contains(tears_the_header), "{name:?}");
}

/// A schema as a service serves it.
pub fn drift(data: &[u8]) {
    let Ok(served) = serde_json::from_slice(data) else { return };
    for change in SCHEMA.changes(&served).unwrap_or_default() {
        let _ = (change.to_string(), change.is_breaking());
        assert_ne!(change.compiled, change.served);
    }
}

/// Sizes, aspect ratios and resolution tiers.
pub fn layout(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse::<Size>().ok(), Some(size));
    }
    if let Ok(ratio) = text.parse::<AspectRatio>() {
        assert_eq!(ratio.to_string().parse::<AspectRatio>().ok(), Some(ratio));
        assert!(ratio.width() > 0 && ratio.height() > 0);
    }
    if let Ok(tier) = text.parse::<Resolution>() {
        assert_eq!(tier.to_string().parse::<Resolution>().ok(), Some(tier));
    }
}

/// When a signed address stops working.
pub fn expiry(data: &[u8]) {
    let _ = images::expiry_of_address(&String::from_utf8_lossy(data));
}

fn check_message(error: &Error) {
    let length = error.to_string().len();
    assert!(length <= MESSAGE, "a message of {length} bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_that_fuzzing_kept_still_holds() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 7] = [
            ("answer", answer),
            ("failure", failure),
            ("retry_after", retry_after),
            ("file_name", file_name),
            ("drift", drift),
            ("layout", layout),
            ("expiry", expiry),
        ];
        for (name, target) in targets {
            let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut inputs = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{folder} is empty");
        }
    }
}
