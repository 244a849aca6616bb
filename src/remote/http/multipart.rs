//! Forms with files, as `multipart/form-data`.

use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value};

use super::upload::Upload;
use crate::error::{Error, ErrorKind};
use crate::values::{Input, OutputFormat, Reading};

/// A form that can be sent several times: each attempt opens the files again.
pub(crate) struct FileForm {
    pub(crate) fields: Map<String, Value>,
    /// The field of each image.
    pub(crate) image_field: &'static str,
    pub(crate) images: Vec<Input>,
    pub(crate) mask_field: &'static str,
    pub(crate) mask: Option<Input>,
}

impl FileForm {
    /// Builds the form for one attempt.
    pub(crate) async fn build(&self, upload: &Upload) -> Result<Form, Error> {
        let mut form = Form::new();
        for (field, value) in &self.fields {
            form = form.text(field.clone(), text(value));
        }
        for image in &self.images {
            form = form.part(self.image_field, part(image, "image", upload).await?.1);
        }
        if let Some(mask) = &self.mask {
            let (format, part) = part(mask, "mask", upload).await?;
            if format != OutputFormat::Png {
                let message =
                    format!("the mask is a {} file; use a PNG of the same size as the image", format.extension());
                return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("mask"));
            }
            form = form.part(self.mask_field, part);
        }
        Ok(form)
    }
}

/// Converts a field to text: strings as they are, other values as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns a file part whose media type and file name match its content. Servers check either.
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

/// Returns the name under which a file is uploaded. Only plain ASCII names are accepted by every server.
pub(crate) fn file_name(stem: &str, format: OutputFormat, parameter: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_. ()".contains(c);
    let stem = if !stem.is_empty() && stem.chars().all(is_plain) { stem } else { parameter };
    format!("{stem}.{}", format.extension())
}
