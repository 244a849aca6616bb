//! The readers of what comes from outside, for [`crate::fuzz`].

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::answer;
use super::body::SomeBody;
use super::failure::Failure;
use super::key::{Key, Secrets};
pub(crate) use super::multipart::file_name;
pub(crate) use super::retry_after::read as read_retry_after;
use super::unpack::{Unpack, Unpacked};
use crate::backend::Output;
use crate::error::Error;

/// The body comes in `pieces`.
pub(crate) fn read_answer<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Output, Error> {
    let mut unpack = Unpack::new(0);
    pieces.into_iter().for_each(|piece| unpack.push(piece));
    answer::output(HeaderMap::new(), unpack.finish(), &Secrets::default()).map_err(|failure| failure.error)
}

/// No image is taken out of the body before it is read.
pub(crate) fn read_untouched_answer(body: &[u8]) -> Result<Output, Error> {
    let untouched = Unpacked::untouched(Bytes::copy_from_slice(body));
    answer::output(HeaderMap::new(), untouched, &Secrets::default()).map_err(|failure| failure.error)
}

pub(crate) fn read_failure(status: StatusCode, body: &[u8], is_whole: bool, key: &str) -> Error {
    let secrets = Secrets::new(Key::new(key, "Bearer", "KEY").ok().as_ref(), []);
    let body = SomeBody { bytes: body.to_vec(), is_whole };
    Failure::of_answer(status, &HeaderMap::new(), &body, &secrets).error
}
