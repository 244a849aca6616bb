//! Reading responses: bodies, images, errors and metadata.

pub(crate) mod base64_stream;
pub(crate) mod body;
pub(crate) mod classify;
pub(crate) mod estimate;
pub(crate) mod events;
pub(crate) mod explanation;
pub(crate) mod failure;
pub(crate) mod headers;
pub(crate) mod images;
pub(crate) mod json;
pub(crate) mod lenient;
pub(crate) mod received;
pub(crate) mod retry_after;
pub(crate) mod timeout;
