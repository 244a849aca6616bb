//! Access to the readers of external data, for [`crate::fuzz`].

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

pub(crate) use super::http::multipart::file_name;
use super::response::body::PartialBody;
use super::response::failure::Failure;
use super::response::images;
use super::response::received::Received;
pub(crate) use super::response::retry_after::read as read_retry_after;
use super::secrets::{Key, Secrets};
use crate::backend::Output;
use crate::error::Error;

/// Reads a response that arrives in `chunks`.
pub(crate) fn read_images<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Output, Error> {
    let mut received = Received::new(None, 0);
    chunks.into_iter().for_each(|chunk| received.push(chunk, &|_| ()));
    images::output(HeaderMap::new(), received.finish(&|_| ()), &url(), &Secrets::default(), None)
        .map_err(|failure| failure.error)
}

pub(crate) fn read_failure(status: StatusCode, body: &[u8], is_complete: bool, key: &str) -> Error {
    let secrets = Secrets::new(Key::new(key, "Bearer", "KEY").ok().as_ref(), []);
    let body = PartialBody { bytes: body.to_vec(), is_complete };
    Failure::of_response(status, &url(), &HeaderMap::new(), body, &secrets).error
}

#[expect(clippy::expect_used, reason = "the URL is constant and valid")]
fn url() -> reqwest::Url {
    reqwest::Url::parse("https://api.example/v1").expect("a valid URL")
}
