//! An edit as `multipart/form-data`.

use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use super::fields::{self, Fields};
use super::upload::Upload;
use crate::backend::EditSpec;
use crate::error::{Error, ErrorKind};
use crate::images::{Input, OutputFormat, Reading};

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
    pub(super) async fn form(&self, upload: &Upload) -> Result<Form, Error> {
        // Servers tell one file from several by the field's name.
        let name = if self.images.len() == 1 { "image" } else { "image[]" };
        let mut form = Form::new();
        for (field, value) in self.fields.iter() {
            form = form.text(field.to_owned(), text(value));
        }
        for image in &self.images {
            form = form.part(name, part(image, "image", upload).await?.1);
        }
        if let Some(mask) = &self.mask {
            let (format, part) = part(mask, "mask", upload).await?;
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
async fn part(input: &Input, parameter: &str, upload: &Upload) -> Result<(OutputFormat, Part), Error> {
    let opened = input.open(parameter).await?;
    let body = match opened.content {
        Reading::Bytes(bytes) => Body::wrap_stream(upload.bytes(bytes)),
        Reading::File(file) => Body::wrap_stream(upload.file(file, opened.length, opened.name, parameter)),
    };
    let part = Part::stream_with_length(body, opened.length)
        .file_name(file_name(input.stem().unwrap_or_default(), opened.format, parameter))
        .mime_str(opened.format.media_type())
        .map_err(|error| Error::new(ErrorKind::InvalidRequest, "the media type is malformed").with_source(error))?;
    Ok((opened.format, part))
}

/// A plain name travels through every server; any other says nothing about the image anyway.
pub(crate) fn file_name(stem: &str, format: OutputFormat, parameter: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_. ()".contains(c);
    let stem = if !stem.is_empty() && stem.chars().all(plain) { stem } else { parameter };
    format!("{stem}.{}", format.extension())
}
