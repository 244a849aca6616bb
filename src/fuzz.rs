//! The functions of the fuzz targets in `fuzz/`: each passes arbitrary input to a reader of external data and checks the
//! properties that hold for any input.
//!
//! A test passes the inputs in `fuzz/corpus/`, and variations of them, to the same functions.

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::backend::Output;
use crate::images::{self, AspectRatio, OutputFormat, Resolution, Size};
use crate::remote;
use crate::{Error, RetryPolicy};

/// The maximum length of an error message.
const MAX_MESSAGE: usize = 2_000;
const KEY: &str = "lmnfl_key.canary";

/// The response to a paid request.
pub fn images(data: &[u8]) {
    let whole = remote::read_images([data]);
    let content = |result: &Result<Output, Error>| match result {
        Ok(Output { images, metadata }) => {
            let images = images.iter().map(|image| (image.content.clone(), image.revised_prompt.clone(), image.seed));
            Ok((images.collect::<Vec<_>>(), format!("{metadata:?}")))
        }
        Err(error) => Err(error.to_string()),
    };
    for size in [1, 7] {
        let chunked = remote::read_images(data.chunks(size));
        assert_eq!(content(&whole), content(&chunked), "chunk boundaries make no difference");
    }
    match whole {
        Ok(output) => assert!(!output.images.is_empty(), "a response without an image is an error"),
        Err(error) => {
            assert!(error.maybe_billed(), "the request succeeded, so it was billed");
            check_message(&error);
        }
    }
}

/// An error response. The first two bytes select the status, and the first bit whether the body is truncated.
pub fn failure(data: &[u8]) {
    let Some((&[high, low], body)) = data.split_first_chunk() else { return };
    let Ok(status) = StatusCode::from_u16(300 + u16::from_be_bytes([high, low]) % 300) else { return };
    let error = remote::read_failure(status, body, high < 0x80, KEY);
    assert_eq!(error.status(), Some(status.as_u16()));
    let printed = format!("{error} {error:?} {:?} {:?}", error.code(), error.parameter());
    assert!(!printed.contains(KEY), "the key is printed: {printed}");
    check_message(&error);
}

/// The header `Retry-After`. A second line is the header `Date`.
pub fn retry_after(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let Some(Ok(value)) = lines.next() else { return };
    let date = lines.next().and_then(Result::ok).map(|date| (DATE, date));
    for name in [RETRY_AFTER, HeaderName::from_static("retry-after-ms")] {
        let headers = date.clone().into_iter().chain([(name, value.clone())]);
        let requested = remote::read_retry_after(&HeaderMap::from_iter(headers));
        let policy = RetryPolicy::default();
        for attempt in [1, u32::MAX] {
            assert!(policy.wait(attempt, requested) <= policy.max_wait, "no wait exceeds the maximum");
        }
    }
}

/// The name of an uploaded file.
pub fn file_name(data: &[u8]) {
    let stem = String::from_utf8_lossy(data);
    let name = remote::file_name(&stem, OutputFormat::Png, "image");
    assert!(name.ends_with(".png") && name.len() > 4, "{name:?}");
    let is_unsafe = |c: char| c.is_control() || "\"\\/;%".contains(c) || !c.is_ascii();
    assert!(!name.contains(is_unsafe), "{name:?}");
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

/// The expiry time of a signed URL.
pub fn expiry(data: &[u8]) {
    let _ = images::expiry_of_url(&String::from_utf8_lossy(data));
}

fn check_message(error: &Error) {
    let length = error.to_string().len();
    assert!(length <= MAX_MESSAGE, "the message has {length} bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that change the structure of JSON, base64 and UTF-8.
    const BYTES: [u8; 12] = [0, b'"', b'\\', b',', b':', b'{', b']', b'=', b' ', b'0', 0x80, 0xFF];

    #[test]
    fn the_properties_hold_for_the_corpus_and_variations_of_it() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 6] = [
            ("images", images),
            ("failure", failure),
            ("retry_after", retry_after),
            ("file_name", file_name),
            ("layout", layout),
            ("expiry", expiry),
        ];
        for (name, target) in targets {
            let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut inputs = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
                let mut input = std::fs::read(entry.unwrap().path()).unwrap();
                target(&input);
                for position in 0..input.len().min(512) {
                    target(&input[..position]);
                    let byte = std::mem::replace(&mut input[position], fastrand::choice(BYTES).unwrap());
                    target(&input);
                    input[position] = byte;
                }
                inputs += 1;
            }
            assert!(inputs > 0, "{folder} is empty");
        }
    }
}
