//! An edit as `multipart/form-data`.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::fields::{self, Fields};
use crate::backend::EditSpec;
use crate::error::{Error, ErrorKind};
use crate::images::{Input, OutputFormat, Reading};

/// Files are read in pieces of this size.
const PIECE: usize = 64 * 1024;

/// An edit that can be written more than once: each try opens its files anew.
pub(super) struct Edit {
    fields: Fields,
    images: Vec<Input>,
    mask: Option<Input>,
}

impl Edit {
    pub(super) fn new(spec: EditSpec) -> Result<Self, Error> {
        let EditSpec { model, images, mask, prompt, options } = spec;
        if images.is_empty() {
            let message = "an edit needs at least one image; give it with `Input::path(..)` or `Input::bytes(..)`";
            return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("image"));
        }
        Ok(Self { fields: fields::edit(model, prompt, options)?, images, mask })
    }

    /// The form, for one try.
    pub(super) async fn form(&self) -> Result<Form, Error> {
        // Servers tell one file from several by the field's name.
        let name = if self.images.len() == 1 { "image" } else { "image[]" };
        let mut form = Form::new();
        for (field, value) in self.fields.iter() {
            form = form.text(field.to_owned(), text(value));
        }
        for image in &self.images {
            form = form.part(name, part(image, "image").await?.1);
        }
        if let Some(mask) = &self.mask {
            let (format, part) = part(mask, "mask").await?;
            if format != OutputFormat::Png {
                let message = format!(
                    "the mask is a {} file; give a PNG whose transparent pixels mark what may change",
                    format.extension()
                );
                return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("mask"));
            }
            form = form.part("mask", part);
        }
        Ok(form)
    }
}

/// A form has only text: strings as they are, everything else as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A file with the media type of its content and a name that fits it: servers look at either.
async fn part(input: &Input, parameter: &str) -> Result<(OutputFormat, Part), Error> {
    let opened = input.open(parameter).await?;
    let body = match opened.content {
        Reading::Bytes(bytes) => Body::from(bytes),
        Reading::File(file) => {
            let why = "it became shorter while it was sent".to_owned();
            let shorter = Unreadable { name: opened.name, parameter: parameter.to_owned(), why };
            Body::wrap_stream(pieces(file, opened.length, shorter))
        }
    };
    let part = Part::stream_with_length(body, opened.length)
        .file_name(file_name(input.stem().unwrap_or_default(), opened.format, parameter))
        .mime_str(opened.format.media_type())
        .map_err(|error| Error::new(ErrorKind::InvalidRequest, "the media type is malformed").with_source(error))?;
    Ok((opened.format, part))
}

/// A file as it is read, of exactly the length that was announced. `shorter` says that it is less by now.
fn pieces(file: File, length: u64, shorter: Unreadable) -> impl Stream<Item = Result<Bytes, Unreadable>> {
    // One that grows meanwhile must not run over it.
    let pieces = ReaderStream::with_capacity(file.take(length), PIECE);
    stream::try_unfold((pieces, length, shorter), |(mut pieces, left, shorter)| async move {
        match pieces.next().await {
            Some(Ok(piece)) => {
                let left = left.saturating_sub(piece.len() as u64);
                Ok(Some((piece, (pieces, left, shorter))))
            }
            Some(Err(error)) => Err(Unreadable { why: error.to_string(), ..shorter }),
            None if left > 0 => Err(shorter),
            None => Ok(None),
        }
    })
}

/// A file of the caller's that cannot be read while it is sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name} to its end: {why}")]
pub(super) struct Unreadable {
    name: String,
    pub(super) parameter: String,
    why: String,
}

/// A plain name travels through every server; any other says nothing about the image anyway.
pub(crate) fn file_name(stem: &str, format: OutputFormat, parameter: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_. ()".contains(c);
    let stem = if !stem.is_empty() && stem.chars().all(plain) { stem } else { parameter };
    format!("{stem}.{}", format.extension())
}
